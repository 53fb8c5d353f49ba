"""HPACK for hyper-h2 that remembers: gRPC clients send the same headers again and again, and get the same back.

What is remembered gives the very same result as working it out again, which takes a third of a call's time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from h2.exceptions import ProtocolError
from h2.utilities import HeaderValidationFlags, validate_headers
from hpack import Decoder, Encoder, HeaderTuple
from hpack.table import HeaderTable

Fields = Sequence[tuple[bytes, bytes]]

_MOST: Final = 32
_LONGEST_BYTES: Final = 1024
_REQUEST: Final = HeaderValidationFlags(
    is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False
)
_LITERAL: Final = b"\x00"
_OK: Final = b"\x88"
"""``:status: 200`` in HPACK's static table."""
_SEVEN_BITS: Final = 0x7F


class _CountingTable(HeaderTable):
    """Says whether it has changed."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        """Add an entry."""
        self.changes += 1
        super().add(name, value)


class RememberingDecoder(Decoder):
    """Knows what a block means that it has decoded before with the same table."""

    def __init__(self, max_header_list_size: int) -> None:
        """Refuse larger lists of headers."""
        super().__init__(max_header_list_size)
        self._table = self.header_table = _CountingTable()
        self._known: dict[bytes, Iterable[HeaderTuple]] = {}
        self._known_at = (0, 0)

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        """Decode a block."""
        table = self._table
        now = (table.changes, table.maxsize)
        if now != self._known_at:
            self._known.clear()
            self._known_at = now
        known = self._known.get(data)
        if known is not None:
            return known
        decoded = super().decode(data, raw)
        if (table.changes, table.maxsize) == now and len(self._known) < _MOST and len(data) < _LONGEST_BYTES:
            self._known[bytes(data)] = decoded
        return decoded


class RememberingEncoder(Encoder):
    """Writes literals, which need no table, and knows those that it has written before."""

    def __init__(self) -> None:
        """Know nothing."""
        super().__init__()
        self._known: dict[tuple[tuple[bytes, bytes], ...], bytes] = {}

    def encode(self, headers: Iterable[tuple[bytes, bytes]], huffman: bool = True) -> bytes:  # type: ignore[override]
        """Encode headers."""
        if self.header_table.resized:  # which is to be said first, in the library's way
            first: bytes = super().encode(headers, huffman)
            return first
        fields = tuple(headers)
        known = self._known.get(fields)
        if known is None:
            known = b"".join([_field(name, value) for name, value in fields])
            if len(self._known) < _MOST and len(known) < _LONGEST_BYTES:
                self._known[fields] = known
        return known


class HeaderRules:
    """Whether a call's headers are allowed by HTTP/2; what hyper-h2 asks of each is asked of the same ones once."""

    def __init__(self) -> None:
        """Know nothing."""
        self._known: set[tuple[tuple[bytes, bytes], ...]] = set()

    def allow(self, fields: Fields) -> bool:
        """Return whether they are."""
        found = tuple(fields)
        if found in self._known:
            return True
        try:
            list(validate_headers(found, _REQUEST))
        except ProtocolError:
            return False
        if len(self._known) < _MOST and sum(len(name) + len(value) for name, value in found) < _LONGEST_BYTES:
            self._known.add(found)
        return True


def _field(name: bytes, value: bytes) -> bytes:
    if (name, value) == (b":status", b"200"):
        return _OK
    return _LITERAL + _text(name) + _text(value)


def _text(text: bytes) -> bytes:
    """Return HPACK's literal string, not compressed."""
    if len(text) < _SEVEN_BITS:
        return bytes([len(text)]) + text
    rest, length = len(text) - _SEVEN_BITS, bytearray([_SEVEN_BITS])
    while rest > _SEVEN_BITS:
        length.append(rest & _SEVEN_BITS | 0x80)
        rest >>= 7
    length.append(rest)
    return bytes(length) + text
