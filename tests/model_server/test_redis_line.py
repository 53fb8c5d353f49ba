"""A connection to Redis gives every request its own replies, or says why there are none and is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis import asyncio as redis_asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, InvalidResponse, NoPermissionError
from redis.exceptions import ConnectionError as RedisConnectionError

from fairlead_server.hydrate.redis_line import Line, Replies
from fairlead_server.hydrate.redis_single import Command, SingleClient, pack
from support.servers import RedisServer, redis_server

ASK = b"*1\r\n$4\r\nPING\r\n"
HEAD, TAIL = pack([b"f"])


@asynccontextmanager
async def answering(*chunks: bytes) -> AsyncIterator[Line]:
    """Connect to a server that answers the first command with these bytes, one write after the other."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(ASK)
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection: Any = redis_asyncio.Connection(port=port, driver_info=None)
        await connection.connect()
        try:
            yield Line(connection)
        finally:
            await connection.disconnect(nowait=True)


def client_of(server: RedisServer) -> SingleClient:
    return SingleClient(redis_asyncio.Redis(port=server.port, retry=Retry(NoBackoff(), 0)), 5.0)


def command(key: bytes) -> Command:
    return Command(key, b"%b%d\r\n%b%b" % (HEAD, len(key), key, TAIL))


async def heard_of(client: SingleClient, keys: Sequence[bytes]) -> Replies | Exception:
    """Ask without a task."""
    heard: asyncio.Future[Replies | Exception] = asyncio.get_running_loop().create_future()
    assert client.start([command(key) for key in keys], 5.0, heard.set_result)
    return await heard


async def test_replies_in_pieces_are_put_together() -> None:
    whole = b"*2\r\n$3\r\nabc\r\n$-1\r\n-NOPERM not you\r\n"
    async with answering(*(whole[i : i + 1] for i in range(len(whole)))) as line:
        first, second = await line.exchange(ASK, 2)
    assert first == [b"abc", None]
    assert isinstance(second, NoPermissionError)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"*1\r\n$1\r\na\r\n*1\r\n$1\r\nb\r\n", RedisConnectionError),  # one more than was asked for
        (b"-LOADING Redis is loading\r\n", BusyLoadingError),
        (b"what?\r\n", InvalidResponse),
    ],
)
async def test_what_is_not_an_answer_closes_the_connection(answer: bytes, error: type[Exception]) -> None:
    async with answering(answer) as line:
        with pytest.raises(error):
            await line.exchange(ASK, 1)
        with pytest.raises(error):  # and nothing more is asked on it
            await line.exchange(ASK, 1)


async def test_who_hangs_up_is_heard_and_so_is_the_server_that_does() -> None:
    async with answering() as line:
        waiting = line.exchange(ASK, 1)
        line.hang_up(TimeoutError("no answer"))
        with pytest.raises(TimeoutError):
            await waiting
    async with answering(b"*1\r\n") as line:
        waiting = line.exchange(ASK, 1)
        await line.connection.disconnect(nowait=True)
        with pytest.raises(RedisConnectionError):
            await waiting


async def test_a_read_without_a_task_is_asked_anew_where_its_connection_was_closed(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        admin: Any = redis.Redis(port=server.port)
        for i in range(3):
            admin.hset(b"k%d" % i, b"f", b"%d" % i)
        client = client_of(server)
        nobody_told: list[Replies | Exception] = []
        assert not client.start([command(b"k0")], 5.0, nobody_told.append)
        await client.connect()
        assert await heard_of(client, [b"k0", b"k1", b"none"]) == [[b"0"], [b"1"], [None]]
        admin.client_kill_filter(_type="normal", skipme=True)
        assert await heard_of(client, [b"k2"]) == [[b"2"]]
        server.kill()
        assert isinstance(await heard_of(client, [b"k2"]), RedisConnectionError)
        assert not nobody_told
        admin.close()
        await client.close()


async def test_a_client_that_is_closed_answers_whoever_waits(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        client = client_of(server)
        await client.connect()
        server.freeze()
        heard = asyncio.ensure_future(heard_of(client, [b"k"]))
        await asyncio.sleep(0)
        await client.close()
        assert isinstance(await heard, RedisConnectionError)
        server.thaw()
