"""Lists of JSON numbers as little-endian elements: natively where the extension is, else by orjson and ``struct``.

Both read what the strict decoder reads, to the last bit, or nothing: text, truth values, null, a number that is out
of range, or another count than is expected is left to that decoder, which says what is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import MappingProxyType
from typing import Final

import orjson

from fairlead_server.native import native

Read = Callable[[bytes, int, int], bytes | None]
"""Return ``body[start:end]`` as elements; None if it is not the list that is expected."""

KINDS: Final = MappingProxyType(
    {
        "FP32": "f4",
        "FP64": "f8",
        "INT8": "i1",
        "INT16": "i2",
        "INT32": "i4",
        "INT64": "i8",
        "UINT8": "u1",
        "UINT16": "u2",
        "UINT32": "u4",
        "UINT64": "u8",
    }
)
"""Numpy's letter and size by the datatypes that are read."""
_CODES: Final = MappingProxyType(dict(zip(KINDS.values(), "fdbhiqBHIQ", strict=True)))
"""Format of ``struct``: it refuses what is out of range."""
_GREATEST: Final = struct.pack("<f", 3.4028234663852886e38)[:3]
"""Start of the greatest float32 of either sign, to which a number beyond the range may have been rounded."""
_NUMERALS: Final = b"0123456789+-.eE, \t\r\n[]"
"""What lists of numbers are made of: no text, no truth value, no null."""


def reader(datatype: str, count: int, *, natively: bool = native is not None) -> Read:
    """Return what reads lists of ``count`` numbers."""
    kind = KINDS[datatype]
    if natively:
        read = native.numbers
        return lambda body, start, end: read(body, start, end, kind, count)
    pack = struct.Struct(f"<{count}{_CODES[kind]}").pack

    def elements(body: bytes, start: int, end: int) -> bytes | None:
        text = body[start:end]
        if text.translate(None, _NUMERALS):
            return None
        try:
            raw = pack(*orjson.loads(text))
        except (ValueError, struct.error, OverflowError):
            return None
        return None if kind == "f4" and _GREATEST in raw else raw

    return elements


def rows_reader(datatype: str, width: int, most: int, *, natively: bool = native is not None) -> Read:
    """Return what reads lists of one to ``most`` lists of ``width`` numbers."""
    kind = KINDS[datatype]
    if natively:
        read = native.rows
        return lambda body, start, end: read(body, start, end, kind, width, most)
    pack = struct.Struct(f"<{width}{_CODES[kind]}").pack

    def elements(body: bytes, start: int, end: int) -> bytes | None:
        text = body[start:end]
        if text.translate(None, _NUMERALS):
            return None
        try:
            found = orjson.loads(text)
            raw = b"".join([pack(*row) for row in found]) if 0 < len(found) <= most else b""
        except (ValueError, TypeError, struct.error, OverflowError):
            return None
        return None if not raw or (kind == "f4" and _GREATEST in raw) else raw

    return elements
