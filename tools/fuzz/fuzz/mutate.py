"""Changes that keep most of an input's structure: a decoder is reached at its depth only by what it nearly takes.

Every function takes a source of chance and an input, and returns another; none depends on anything else.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

Mutate = Callable[[random.Random, bytes], bytes]

_DEEPEST = 40
_BYTES = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"{",
    b"}",
    b'"',
    b"\r\n",
    b"\n",
    b":",
    b",",
    b"\xed\xa0\x80",
    b"\xf0\x9f",
)
_NUMBERS = (
    0,
    -0.0,
    1,
    -1,
    2**31 - 1,
    2**31,
    2**32,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63) - 1,
    10**40,
)
_VALUES: tuple[Any, ...] = (
    *_NUMBERS,
    *(1e-45, 1e-310, 3.4028235e38, 3.4028236e38, 1e39, 1e308, 65504.0, 65520.0, 0.1, 1.5, 1e16, 1e22, -1e-7),
    *(None, True, False, "", "x", "1", "NaN", "FP32", "BYTES", "INT64", "BOOL", "x" * 300, "\u2028", "\0", "%b%d"),
    *([], {}, [[]], [None], [[1, 2, 3, 4]], {"x": 1}),
)
_NAMES = (
    *("name", "shape", "datatype", "data", "parameters", "inputs", "outputs", "id", "instances", "model_name"),
    *("binary_data_size", "binary_data", "binary_data_output", "classification", "sequence_id", "report_states"),
)


def anyhow(chance: random.Random, data: bytes) -> bytes:
    """Change bytes, without knowing what they mean."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 8))):
        place = chance.randrange(len(made) + 1)
        width = chance.choice((1, 1, 2, 4, 16, 64))
        match chance.randrange(6):
            case 0:
                del made[place : place + width]
            case 1:
                made[place:place] = chance.choice(_BYTES) * chance.choice((1, 1, 3, 50))
            case 2:
                made[place:place] = made[(start := chance.randrange(len(made) + 1)) : start + width]
            case 3 if place < len(made):
                made[place] ^= 1 << chance.randrange(8)
            case 4 if place < len(made):
                made[place] = chance.randrange(256)
            case _:
                made[place : place + width] = chance.randbytes(width)
    return bytes(made)


# JSON


def json_body(chance: random.Random, data: bytes) -> bytes:
    """Change a JSON document: values, names, nesting, spelling of numbers, blanks."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return anyhow(chance, data)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
        document = _other(chance, document, 0)
    blanks = chance.choice(((",", ":"), (",", ":"), (", ", ": "), (" ,", " :\n")))
    try:
        text = json.dumps(document, separators=blanks, ensure_ascii=chance.random() < 0.5)
        encoded = text.encode()
    except (ValueError, RecursionError):
        return anyhow(chance, data)
    return respelled(chance, encoded) if chance.random() < 0.4 else encoded


def _other(chance: random.Random, value: Any, depth: int) -> Any:  # noqa: PLR0911 -- one for each change
    """Return ``value`` with one thing changed, somewhere in it."""
    if depth > _DEEPEST or chance.random() < 0.15 or not isinstance(value, (dict, list)) or not value:
        return _instead(chance, value)
    if isinstance(value, dict):
        key = chance.choice(list(value))
        match chance.randrange(8):
            case 0:
                return {name: inner for name, inner in value.items() if name != key}
            case 1:
                return value | {chance.choice(_NAMES): chance.choice(_VALUES)}
            case 2:
                return {(chance.choice(_NAMES) if name == key else name): inner for name, inner in value.items()}
        return value | {key: _other(chance, value[key], depth + 1)}
    place = chance.randrange(len(value))
    match chance.randrange(8):
        case 0:
            return value[:place] + value[place + 1 :]
        case 1:
            return [*value[:place], value[place], *value[place:]]
        case 2:
            return [*value, _instead(chance, value[place])]
        case 3:
            return value * chance.choice((2, 3, 16))
    return [*value[:place], _other(chance, value[place], depth + 1), *value[place + 1 :]]


def _instead(chance: random.Random, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or chance.random() < 0.3:
        return chance.choice((*_VALUES, [value], {"x": value}))
    return chance.choice(
        (value + 1, value - 1, -value, value * 1.5, float(value), chance.uniform(-1e3, 1e3), chance.choice(_NUMBERS))
    )


def respelled(chance: random.Random, text: bytes) -> bytes:
    """Write a number in another way, or leave what JSON does not allow."""
    places = [place for place, byte in enumerate(text) if byte in b"0123456789,:[]"]
    if not places:
        return text
    place = chance.choice(places)
    spelling = chance.choice(
        (
            b"1e2",
            b"-0",
            b"0.10",
            b"1E+1",
            b"01",
            b"+1",
            b".5",
            b"1.",
            b"NaN",
            b"Infinity",
            b"1e999",
            b"-1e-999",
            b" ",
            b"\t",
            b"\xa0",
            b"\0",
        )
    )
    return text[:place] + spelling + text[place + chance.randrange(2) :]


# JSON and bytes after it: a line with the header's value, then the body.


def binary(chance: random.Random, data: bytes) -> bytes:
    """Change a V2 body with bytes after its JSON, mostly keeping the length right."""
    told, _, body = data.partition(b"\n")
    if not told.isdigit() or len(told) > 9:
        return anyhow(chance, data)
    head, tail = body[: int(told)], body[int(told) :]
    match chance.randrange(4):
        case 0:
            tail = anyhow(chance, tail)
        case 1:
            return anyhow(chance, told) + b"\n" + body
        case _:
            head = json_body(chance, head)
            if chance.random() < 0.3:
                tail += chance.randbytes(chance.choice((1, 4, 8, 16)))
    return b"%d\n" % len(head) + head + tail


# Protobuf, by its wire format alone


def protobuf(chance: random.Random, data: bytes) -> bytes:
    """Change fields of a message: leave out, repeat, swap, retype, change their values, descend into them."""
    fields = _fields(data)
    if not fields or chance.random() < 0.15:
        return anyhow(chance, data)
    place = chance.randrange(len(fields))
    tag, value = fields[place]
    match chance.randrange(9):
        case 0:
            del fields[place]
        case 1:
            fields.insert(chance.randrange(len(fields) + 1), (tag, value))
        case 2:
            chance.shuffle(fields)
        case 3:
            fields[place] = ((chance.randrange(1, 12) << 3) | (tag & 7), value)
        case 4:
            fields[place] = ((tag & ~7) | chance.choice((0, 1, 2, 5)), value)
        case _ if tag & 7 == 2:
            inner = protobuf if _fields(bytes(value)) and chance.random() < 0.8 else anyhow
            fields[place] = (tag, inner(chance, bytes(value)))
        case _:
            fields[place] = (tag, chance.choice((*_NUMBERS[:1], 1, 2, 127, 128, 2**31, 2**32, 2**63, 2**64 - 1)))
    return b"".join(_field(tag, value) for tag, value in fields)


def _fields(data: bytes) -> list[tuple[int, Any]]:
    """Return tags and values; empty if this is no message."""
    found: list[tuple[int, Any]] = []
    place = 0
    try:
        while place < len(data):
            tag, place = _varint(data, place)
            match tag & 7:
                case 0:
                    value, place = _varint(data, place)
                    found.append((tag, value))
                case 2:
                    size, place = _varint(data, place)
                    if place + size > len(data):
                        return []
                    found.append((tag, data[place : place + size]))
                    place += size
                case 1 | 5:
                    size = 8 if tag & 7 == 1 else 4
                    found.append((tag, data[place : place + size].ljust(size, b"\0")))
                    place += size
                case _:
                    return []
    except IndexError:
        return []
    return found


def _field(tag: int, value: Any) -> bytes:
    kind = tag & 7
    if kind == 0:
        return _varied(tag) + _varied(value if isinstance(value, int) else len(value))
    content = bytes(value) if isinstance(value, bytes) else struct.pack("<Q", abs(int(value)) & (2**64 - 1))
    if kind == 2:
        return _varied(tag) + _varied(len(content)) + content
    return _varied(tag) + content.ljust(8, b"\0")[: 8 if kind == 1 else 4]


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128 or shift > 63:
            return value, place


def _varied(value: int) -> bytes:
    value = abs(int(value)) & (2**64 - 1)
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    made.append(value)
    return bytes(made)


# HTTP/1.1

_HEADERS = (
    *(
        b"content-length: 0",
        b"content-length: 5",
        b"content-length: -1",
        b"content-length: 99999999999999999999",
        b"content-length: 1, 1",
    ),
    *(
        b"transfer-encoding: chunked",
        b"transfer-encoding: gzip, chunked",
        b"Transfer-Encoding : chunked",
        b"expect: 100-continue",
    ),
    *(b"connection: close", b"connection: keep-alive", b"connection: upgrade", b"upgrade: h2c", b"upgrade: websocket"),
    *(b"inference-header-content-length: 70", b"inference-header-content-length: \xb2", b"content-encoding: gzip"),
    *(b"x-envoy-expected-rq-timeout-ms: 60000", b"x-envoy-expected-rq-timeout-ms: x", b"host: y", b": z", b" folded"),
    *(
        b"x-experiment: a.b.c",
        b"x-fairlead-experiment: \xff\xfe",
        b"accept: */*;q=x",
        b"http2-settings: AAMAAABk",
        b"x" * 3000 + b": y",
    ),
)
_TARGETS = (
    *(
        b"/",
        b"/v2",
        b"/v2/health/ready",
        b"/v2/models/rows/infer",
        b"/v2/models/rows/versions/1/infer",
        b"/v1/models/rows:predict",
    ),
    *(
        b"/v1/models/rows:explain",
        b"/metrics",
        b"/v2/models/%72ows/infer",
        b"/v2/models/%ff/infer",
        b"//v2//",
        b"*",
        b"/v2/repository/index",
    ),
    *(
        b"/v2/repository/models/rows/load",
        b"http://x/v2",
        b"/v2?x=%00",
        b"/v2/models/\xc3\xa9/infer",
        b"/" + b"a" * 5000,
        b"v2",
        b"/v2/models",
    ),
)
_METHODS = (b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"PUT", b"get", b"PRI", b"PATCH", b"G\0T")
_VERSIONS = (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.9", b"http/1.1", b"")


def http(chance: random.Random, data: bytes) -> bytes:
    """Change requests of a connection: lines, headers, lengths, chunks, order."""
    if chance.random() < 0.2:
        return anyhow(chance, data)
    head, found, rest = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    match chance.randrange(9):
        case 0:
            lines.insert(chance.randrange(1, len(lines) + 1), chance.choice(_HEADERS))
        case 1:
            del lines[chance.randrange(len(lines))]
        case 2:
            lines[0] = b" ".join((chance.choice(_METHODS), *lines[0].split(b" ")[1:]))
        case 3:
            lines[0] = b" ".join(
                (chance.choice((b"POST", b"GET")), chance.choice(_TARGETS), chance.choice(_VERSIONS[:2]))
            )
        case 4:
            lines[0] = b" ".join((*lines[0].split(b" ")[:2], chance.choice(_VERSIONS)))
        case 5:
            rest = anyhow(chance, rest)
        case 6:
            return data + http(chance, data)
        case 7:
            place = chance.randrange(len(rest) + 1)
            pieces = [piece for piece in (rest[:place], rest[place:]) if piece] + [b""]
            lines = [line for line in lines if not line.lower().startswith(b"content-length")]
            lines.append(b"transfer-encoding: chunked")
            rest = b"".join(b"%x\r\n%b\r\n" % (len(piece) + (chance.random() < 0.1), piece) for piece in pieces)
        case _:
            lines = [line for line in lines if not line.lower().startswith(b"content-length")]
            rest = json_body(chance, rest)
            lines.append(b"content-length: %d" % (len(rest) + chance.choice((0, 0, 0, 0, 1, -1, 100))))
    return b"\r\n".join(lines) + (found or b"\r\n\r\n") + rest


# HTTP/2

_FRAME = 9
_SETTINGS = ((1, 0), (1, 2**32 - 1), (2, 2), (3, 0), (4, 0), (4, 2**31), (5, 0), (5, 2**24 - 1), (6, 0), (99, 1))


def frames(chance: random.Random, data: bytes) -> bytes:  # noqa: C901, PLR0912 -- one for each change
    """Change frames of a connection: kinds, flags, streams, lengths, contents, order."""
    if chance.random() < 0.1:
        return anyhow(chance, data)
    found = _frames(data)
    if not found:
        return anyhow(chance, data)
    for _ in range(chance.choice((1, 1, 2, 3))):
        place = chance.randrange(len(found))
        kind, flags, stream, payload = found[place]
        match chance.randrange(11):
            case 0:
                found[place] = (chance.randrange(12), flags, stream, payload)
            case 1:
                found[place] = (kind, flags ^ (1 << chance.randrange(8)), stream, payload)
            case 2:
                other = chance.choice((0, 1, 2, 3, 5, stream + 2, stream + 1, 2**31 - 1, 2**31 + 1))
                found[place] = (kind, flags, other & (2**32 - 1), payload)
            case 3 if len(found) > 1:
                del found[place]
            case 4:
                found.insert(chance.randrange(len(found) + 1), found[place])
            case 5:
                found[place:place] = [(kind, flags, stream, payload)] * chance.choice((2, 20, 120))
            case 6:
                cut = chance.randrange(len(payload) + 1)
                found[place : place + 1] = [
                    (kind, flags & ~5, stream, payload[:cut]),
                    (9 if kind == 1 else kind, flags, stream, payload[cut:]),
                ]
            case 7:
                setting = b"".join(struct.pack(">HI", *one) for one in chance.choices(_SETTINGS, k=chance.randrange(4)))
                found.insert(place, (4, chance.choice((0, 0, 1)), 0, setting))
            case 8:
                size = chance.choice((0, 1, 2**16, 2**31 - 1))
                found.insert(
                    place, (chance.choice((8, 8, 3, 7)), 0, chance.choice((0, stream)), struct.pack(">I", size))
                )
            case 9:
                code = struct.pack(">I", chance.choice((0, 8, 11)))
                found.insert(place + 1, (3, 0, stream, code))
            case _:
                inner = _message if kind == 0 and chance.random() < 0.7 else anyhow
                found[place] = (kind, flags, stream, inner(chance, payload))
    return b"".join(_framed(*one) for one in found)


def _message(chance: random.Random, payload: bytes) -> bytes:
    """Change a gRPC message in DATA, mostly keeping its length right."""
    message = protobuf(chance, payload[5:])
    return chance.choice((payload[:1], payload[:1], b"\1", b"\2")) + struct.pack(">I", len(message)) + message


def _frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    found: list[tuple[int, int, int, bytes]] = []
    while len(data) >= _FRAME:
        size = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[_FRAME : _FRAME + size]))
        data = data[_FRAME + size :]
    return found


def _framed(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind & 255, flags & 255]) + struct.pack(">I", stream) + payload


def pieces(data: bytes, seed: int) -> Sequence[bytes]:
    """Cut ``data`` as a network might, differently for each seed; 0 leaves it whole."""
    if not seed:
        return [data]
    chance = random.Random(seed)
    cuts = sorted({0, len(data), *(chance.randrange(len(data) + 1) for _ in range(chance.choice((1, 3, 12))))})
    return [data[start:end] for start, end in pairwise(cuts)]
