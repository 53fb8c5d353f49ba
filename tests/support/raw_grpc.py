"""A gRPC call written byte by byte, for metadata that no gRPC library would send."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator

import hpack

_DATA, _HEADERS, _SETTINGS = 0x0, 0x1, 0x4
_END_STREAM, _END_HEADERS = 0x1, 0x4
_FRAME_HEAD = 9
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def call(port: int, method: str, message: bytes, metadata: Iterable[tuple[bytes, bytes]]) -> bool:
    """Call a unary method on the loopback and return whether it answered with status 0.

    Args:
        port: Where the server listens.
        method: Such as ``/inference.GRPCInferenceService/ModelInfer``.
        message: The request, encoded.
        metadata: Names and values as they are sent; values shorter than 127 bytes, or up to 16 KiB.
    """
    head = [
        *((b":method", b"POST"), (b":scheme", b"http"), (b":path", method.encode()), (b":authority", b"localhost")),
        *((b"content-type", b"application/grpc"), (b"te", b"trailers")),
    ]
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in [*head, *metadata])
    body = b"\0" + struct.pack(">I", len(message)) + message
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        frames = _frame(_SETTINGS, 0, 0, b"") + _frame(_HEADERS, _END_HEADERS, 1, block)
        connection.sendall(_PREFACE + frames + _frame(_DATA, _END_STREAM, 1, body))
        decoder = hpack.Decoder()
        for kind, payload in _frames_of(connection):
            headers = dict(decoder.decode(payload, raw=True)) if kind == _HEADERS else {}
            if b"grpc-status" in headers:
                return headers[b"grpc-status"] == b"0"
    return False


def _frames_of(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the payload of each frame until the server closes the connection."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
        while len(received) >= _FRAME_HEAD and len(received) >= _FRAME_HEAD + int.from_bytes(received[:3]):
            end = _FRAME_HEAD + int.from_bytes(received[:3])
            yield received[3], received[_FRAME_HEAD:end]
            received = received[end:]


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _text(raw: bytes) -> bytes:
    """Return HPACK's literal string, not compressed."""
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    rest, length = len(raw) - 127, b"\x7f"
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + raw
