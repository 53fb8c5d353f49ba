"""How many connections a process takes, and how long one may take to say what it speaks; with real sockets."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from fairlead_server.protocol.port import Bounds, Door
from fairlead_server.sockets import room_for
from support.doors import EchoConnections
from support.waiting import until

HTTP, GRPC = b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"
READ_S = 20


class Stand:
    """A door that listens."""

    def __init__(self, bounds: Bounds) -> None:
        self.http, self.grpc = EchoConnections(stays=True), EchoConnections(b"grpc:", stays=True)
        self.metrics = CollectorRegistry()
        self.door = Door(self.http, self.grpc, bounds).watch(self.metrics)
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self, said: bytes = b"") -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        writer.write(said)
        return reader

    def leave(self) -> None:
        """Let the oldest client go."""
        self._writers.pop(0).close()

    def metric(self, name: str) -> float | None:
        return self.metrics.get_sample_value(name)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def listening(**bounds: float) -> AsyncIterator[Stand]:
    stand = Stand(Bounds(**bounds))  # type: ignore[arg-type]  # connections is a number too
    server = await asyncio.get_running_loop().create_server(stand.door.open, "127.0.0.1", 0)
    stand.port = server.sockets[0].getsockname()[1]
    yield stand
    stand.close()
    server.close()


async def heard(reader: asyncio.StreamReader, size: int) -> bytes:
    return await asyncio.wait_for(reader.readexactly(size), READ_S)


async def closed(reader: asyncio.StreamReader) -> bytes:
    """Return what is said until the connection is closed."""
    try:
        return await asyncio.wait_for(reader.read(), READ_S)
    except ConnectionError:
        return b""


async def test_one_connection_too_many_is_closed_at_once_and_counted() -> None:
    async with listening(connections=3) as stand:
        for said, name in ((HTTP, b"http:"), (GRPC, b"grpc:")):
            assert await heard(await stand.connect(said), 5) == name
        await stand.connect()  # says nothing yet, and counts
        await until(lambda: stand.door.count == 3)
        for said in (HTTP, GRPC, b""):
            assert await closed(await stand.connect(said)) == b""
        assert (stand.metric("fairlead_connections"), stand.metric("fairlead_connections_turned_away_total")) == (3, 3)
        stand.leave()
        await until(lambda: stand.door.count == 2)
        assert await heard(await stand.connect(HTTP), 5) == b"http:"


@pytest.mark.parametrize("said", [b"P", b"PRI"])
async def test_who_begins_and_does_not_go_on_is_closed_before_who_says_nothing(said: bytes) -> None:
    async with listening(greeting_s=0.05, silence_s=3600) as stand:
        silent = await stand.connect()
        assert await closed(await stand.connect(said)) == b""
        assert not silent.at_eof()
        await until(lambda: stand.door.count == 1)


async def test_who_says_nothing_is_closed_in_the_end() -> None:
    async with listening(silence_s=0.05) as stand:
        assert await closed(await stand.connect()) == b""
        await until(lambda: stand.door.count == 0)


async def test_half_a_request_line_that_ends_goes_to_http() -> None:
    async with listening() as stand:
        _, writer = connected = await asyncio.open_connection("127.0.0.1", stand.port)
        writer.write(b"PR")
        writer.write_eof()
        assert await heard(connected[0], 7) == b"http:PR"
        writer.close()


@pytest.mark.parametrize(
    ("limits", "wanted", "room", "set_to"),
    [
        ((1024, 4096), 500, 500, None),
        ((1024, 4096), 2000, 2000, 2128),
        ((1024, 4096), 8192, 3968, 4096),
        ((1024, resource.RLIM_INFINITY), 8192, 8192, 8320),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 8192, 8192, None),
    ],
)
def test_room_for_connections_is_made_among_open_files(
    limits: tuple[int, int], wanted: int, room: int, set_to: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    note: Callable[..., None] = lambda _, given: found.append(given[0])  # noqa: E731 -- a stand-in for the system's
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", note)
    assert room_for(wanted) == room
    assert found == ([] if set_to is None else [set_to])
