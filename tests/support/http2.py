"""HTTP/2 written frame by frame, for what no library would send."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Headers = Iterable[tuple[str, str]]


class Kind(IntEnum):
    """Types of frames."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag(IntFlag):
    """Flags of frames; ACK is END_STREAM's bit."""

    NONE = 0
    END_STREAM = 1
    END_HEADERS = 4


@dataclass(frozen=True, slots=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: Kind, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def frames_in(raw: bytes) -> list[Frame]:
    """The frames of what an engine gave to be sent."""
    found = []
    while raw:
        length = int.from_bytes(raw[:3], "big")
        found.append(Frame(raw[3], raw[4], int.from_bytes(raw[5:9], "big") & 0x7FFFFFFF, raw[9 : 9 + length]))
        raw = raw[9 + length :]
    return found


def head(path: str, extra: Headers = (), *, content_type: str = "application/grpc", method: str = "POST") -> bytes:
    """A request's headers, encoded without a table, so that each may be sent on any connection."""
    fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x"), ("te", "trailers")]
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return bytes(encoder.encode([*fields, ("content-type", content_type), *extra]))


def framed(message: bytes, *, compressed: bool = False) -> bytes:
    """A gRPC message."""
    return bytes([compressed]) + struct.pack(">I", len(message)) + message


class Connection:
    """A client that does only what it is told."""

    def __init__(self, port: int, settings: bytes = b"", timeout_s: float = 30) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._decoder = hpack.Decoder()
        self.send(PREFACE, frame(Kind.SETTINGS, payload=settings))

    def send(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(frames))

    def call(self, stream: int, path: str, message: bytes, extra: Headers = ()) -> None:
        """Send a whole unary call."""
        self.send(
            frame(Kind.HEADERS, Flag.END_HEADERS, stream, head(path, extra)),
            frame(Kind.DATA, Flag.END_STREAM, stream, framed(message)),
        )

    def frames(self) -> Iterator[Frame]:
        """What the server sends, until it closes."""
        while True:
            while len(self._received) < 9 or len(self._received) < 9 + self._length():
                try:
                    received = self.socket.recv(2**16)
                except ConnectionError:
                    return
                if not received:
                    return
                self._received += received
            length = self._length()
            raw, self._received = self._received[: 9 + length], self._received[9 + length :]
            yield Frame(raw[3], raw[4], int.from_bytes(raw[5:9], "big") & 0x7FFFFFFF, raw[9:])

    def headers(self, found: Frame) -> dict[str, str]:
        """The fields of a HEADERS frame; to be asked of each, in order."""
        return {str(name): str(value) for name, value in self._decoder.decode(found.payload)}

    def ended(self, stream: int) -> tuple[bytes, dict[str, str]]:
        """Wait for the end of a stream; return its DATA and all its headers."""
        data, fields = b"", dict[str, str]()
        for found in self.frames():
            if found.kind == Kind.HEADERS:
                named = self.headers(found)
                fields |= named if found.stream == stream else {}
            if found.stream != stream:
                continue
            if found.kind == Kind.DATA:
                data += found.payload
            if found.kind == Kind.RST_STREAM:
                return data, fields | {"reset": str(int.from_bytes(found.payload, "big"))}
            if found.kind in {Kind.DATA, Kind.HEADERS} and found.flags & Flag.END_STREAM:
                return data, fields
        return data, fields | {"closed": "1"}

    def close(self) -> None:
        self.socket.close()

    def _length(self) -> int:
        return int.from_bytes(self._received[:3], "big")
