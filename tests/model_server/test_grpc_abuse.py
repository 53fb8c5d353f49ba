"""What a hostile client can do to an engine: it costs little memory, and the next client is answered."""

from __future__ import annotations

import contextlib
import itertools
import select
import struct
from collections.abc import Callable, Iterator

import pytest

from support.engines import require_engine
from support.grpc_host import GrpcHost, grpc_host
from support.http2 import Connection, Flag, Kind, frame, framed, head

LIVE = "/inference.GRPCInferenceService/ServerLive"
METADATA = "/inference.GRPCInferenceService/ServerMetadata"
BOUND_BYTES = 16 * 2**20
HEAD, TALK = head(LIVE), head(METADATA)
MESSAGE = framed(b"")
Chunks = Iterator[bytes]
PER_CHUNK = 50


def streams() -> Iterator[range]:
    """Numbers of streams, some for each chunk."""
    for start in itertools.count(1, 2 * PER_CHUNK):
        yield range(start, start + 2 * PER_CHUNK, 2)


def rapid_reset() -> Chunks:
    for some in streams():
        yield b"".join(
            frame(Kind.HEADERS, Flag.END_HEADERS, stream, HEAD) + frame(Kind.RST_STREAM, 0, stream, b"\0\0\0\x08")
            for stream in some
        )


def complete_and_reset() -> Chunks:
    for some in streams():
        yield b"".join(
            frame(Kind.HEADERS, Flag.END_HEADERS, stream, HEAD)
            + frame(Kind.DATA, Flag.END_STREAM, stream, MESSAGE)
            + frame(Kind.RST_STREAM, 0, stream, b"\0\0\0\x08")
            for stream in some
        )


def continuation_flood() -> Chunks:
    yield frame(Kind.HEADERS, 0, 1, HEAD)
    while True:
        yield frame(Kind.CONTINUATION, 0, 1, b"\x00\x05x-abc\x64" + b"a" * 100) * PER_CHUNK


def empty_continuations() -> Chunks:
    yield frame(Kind.HEADERS, 0, 1, HEAD)
    while True:
        yield frame(Kind.CONTINUATION, 0, 1) * PER_CHUNK


def ping_flood() -> Chunks:
    while True:
        yield frame(Kind.PING, 0, 0, b"12345678") * PER_CHUNK


def settings_flood() -> Chunks:
    while True:
        yield frame(Kind.SETTINGS, 0, 0, struct.pack(">HI", 3, 100)) * PER_CHUNK


def empty_data() -> Chunks:
    yield frame(Kind.HEADERS, Flag.END_HEADERS, 1, HEAD)
    while True:
        yield frame(Kind.DATA, 0, 1) * PER_CHUNK


def open_streams() -> Chunks:
    for some in streams():
        yield b"".join(frame(Kind.HEADERS, Flag.END_HEADERS, stream, HEAD) for stream in some)


def half_messages() -> Chunks:
    """Each stream says that it will send a lot, and sends half of it."""
    for some in streams():
        for stream in some:
            yield frame(Kind.HEADERS, Flag.END_HEADERS, stream, HEAD) + b"".join(
                frame(Kind.DATA, 0, stream, part)
                for part in (b"\0" + struct.pack(">I", 2**20) + b"a" * 16000, *[b"a" * 16000] * 3)
            )


def hpack_bomb() -> Chunks:
    """One large entry of the dynamic table, named again and again."""
    large = b"\x40\x01z\x7f" + bytes([0x80 | ((4000 - 127) & 127), (4000 - 127) >> 7]) + b"a" * 4000
    yield frame(Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, 1, HEAD + large)
    for stream in itertools.count(3, 2):
        yield frame(Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, stream, HEAD + b"\xbe" * 14000)


def window_overflow() -> Chunks:
    yield frame(Kind.HEADERS, Flag.END_HEADERS, 1, HEAD)
    while True:
        yield frame(Kind.WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1))


def parked_answers() -> Chunks:
    """The client grants no window, so that answers cannot be sent."""
    yield frame(Kind.SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
    for some in streams():
        yield b"".join(
            frame(Kind.HEADERS, Flag.END_HEADERS, stream, TALK) + frame(Kind.DATA, Flag.END_STREAM, stream, MESSAGE)
            for stream in some
        )


def unread_answers() -> Chunks:
    """The client grants all there is, and never reads."""
    yield frame(Kind.SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31 - 1))
    yield frame(Kind.WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1 - 65535))
    for some in streams():
        yield b"".join(
            frame(Kind.HEADERS, Flag.END_HEADERS, stream, TALK) + frame(Kind.DATA, Flag.END_STREAM, stream, MESSAGE)
            for stream in some
        )


PROBES: dict[str, tuple[Callable[[], Chunks], int, bool]] = {
    "rapid reset": (rapid_reset, 100, True),
    "complete and reset": (complete_and_reset, 100, True),
    "CONTINUATION flood": (continuation_flood, 400, True),
    "empty CONTINUATION": (empty_continuations, 400, True),
    "PING flood, answers unread": (ping_flood, 400, False),
    "SETTINGS flood, answers unread": (settings_flood, 400, False),
    "empty DATA flood": (empty_data, 400, True),
    "20,000 open streams": (open_streams, 400, True),
    "half messages": (half_messages, 2000, True),
    "HPACK bomb": (hpack_bomb, 60, True),
    "window overflow": (window_overflow, 20, True),
    "answers parked by a zero window": (parked_answers, 200, True),
    "answers unread": (unread_answers, 200, False),
}
"""What is sent, how many chunks of it at most, and whether answers are read."""


@pytest.fixture(scope="module", params=["native", "python"])
def host(request: pytest.FixtureRequest) -> Iterator[GrpcHost]:
    require_engine(request.param)
    with grpc_host(request.param) as started:
        require_answer(started)
        yield started


@pytest.mark.parametrize(("probe", "chunks", "reads"), PROBES.values(), ids=list(PROBES))
def test_abuse_costs_little_memory_and_no_other_client(
    host: GrpcHost, probe: Callable[[], Chunks], chunks: int, reads: bool
) -> None:
    before = host.resident_bytes
    connection = Connection(host.port)
    most = send(connection, itertools.islice(probe(), chunks), host, reads=reads)
    require_answer(host)
    assert max(most, host.resident_bytes) - before < BOUND_BYTES
    connection.close()


def send(connection: Connection, chunks: Chunks, host: GrpcHost, *, reads: bool) -> int:
    """Send as long as the server reads; return the most memory that it took meanwhile."""
    most = 0
    connection.socket.settimeout(0.5)
    with contextlib.suppress(ConnectionError, TimeoutError):
        for number, chunk in enumerate(chunks):
            connection.socket.sendall(chunk)
            while reads and select.select([connection.socket], [], [], 0)[0]:
                if not connection.socket.recv(2**16):
                    return most
            if number % 20 == 0:
                most = max(most, host.resident_bytes)
    return most


def require_answer(host: GrpcHost) -> None:
    """A new client is answered; so is whatever came before it, for the server has one thread."""
    connection = Connection(host.port)
    connection.call(1, LIVE, b"")
    data, fields = connection.ended(1)
    assert (data, fields["grpc-status"]) == (framed(b"\x08\x01"), "0")
    connection.close()
