"""Asks one Redis server, or the master behind Sentinel, on connections that redis-py makes.

A request goes out in one write, on a connection that is kept for the next. Nothing is retried but a read on a
connection that turned out to be closed. Making a connection may take longer than a read may last (names, TLS, a
password, a Sentinel that hangs), so it goes on when the read that wanted it has given up, and the next one has it.
After a failure all idle connections are closed: one that was left over might lead to a server that is no master any
more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from fairlead_server.hydrate.redis_line import Heard, Line, Replies

_LOG = logging.getLogger(__name__)
UNREACHABLE = (RedisError, OSError, TimeoutError)
"""What asking a server may raise."""


class Command(NamedTuple):
    """Asks for fields of one hash."""

    key: bytes
    packed: bytes
    """The command as it goes over the wire; see :func:`pack`."""


class RedisClient(Protocol):
    """Whatever hashes are asked of."""

    async def ask(self, commands: Sequence[Command]) -> Replies:
        """Ask for hashes; raises what redis-py raises, if none can be had."""

    def start(self, commands: Sequence[Command], give_up_s: float, heard: Heard) -> bool:
        """Ask for hashes at once, without a task; return whether that could be done.

        Args:
            commands: What is asked for.
            give_up_s: Seconds after which the connection is given up if nothing is heard.
            heard: Told replies or the failure, in a later turn of the event loop; never if False is returned.
        """

    async def connect(self) -> None:
        """Make connections in advance; what fails is told by whoever asks next."""

    async def close(self) -> None:
        """Close all connections."""


def pack(fields: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return what goes before the key's length and after the key in an ``HMGET`` of these fields."""
    tail = b"".join(b"\r\n$%d\r\n%b" % (len(field), field) for field in fields)
    return b"*%d\r\n$5\r\nHMGET\r\n$" % (len(fields) + 2), tail + b"\r\n"


class _Asked(NamedTuple):
    """A read that no task waits for."""

    payload: bytes
    amount: int
    """Of commands."""
    give_up_s: float
    heard: Heard


class SingleClient:
    """One server, or the master behind Sentinel."""

    def __init__(self, redis: Any, connect_s: float) -> None:
        """Use the connections of a ``redis.asyncio.Redis``.

        Args:
            redis: What makes connections.
            connect_s: Longest time that making one may take, seconds.
        """
        self._redis = redis
        self._pool = redis.connection_pool
        self._connect_s = connect_s
        self._idle: list[Line] = []
        self._making: asyncio.Task[None] | None = None
        self._busy: set[Line] = set()
        """Connections of reads that no task waits for."""
        self._mending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def connect(self) -> None:
        """Make a connection, unless there is one."""
        try:
            self._idle.append(await self._connection())
        except UNREACHABLE as error:
            _LOG.info("redis cannot be connected to error=%s", type(error).__name__)

    async def ask(self, commands: Sequence[Command]) -> Replies:
        """Ask for hashes, all in one write.

        Raises:
            RedisError: The server cannot be asked.
            OSError: The same.
            TimeoutError: No connection can be made in time.
        """
        return await self.exchange(b"".join([command.packed for command in commands]), len(commands))

    def start(self, commands: Sequence[Command], give_up_s: float, heard: Heard) -> bool:
        """Ask on an idle connection, if there is one; see :class:`RedisClient`."""
        if not self._idle:
            return False
        line = self._idle.pop()
        payload = commands[0].packed if len(commands) == 1 else b"".join([command.packed for command in commands])
        asked = _Asked(payload, len(commands), give_up_s, heard)
        timer = asyncio.get_running_loop().call_later(give_up_s, line.hang_up, TimeoutError("no answer in time"))
        self._busy.add(line)
        line.send(payload, asked.amount, partial(self._ended, line, timer, asked))
        return True

    def _ended(self, line: Line, timer: asyncio.TimerHandle, asked: _Asked, outcome: Replies | Exception) -> None:
        timer.cancel()
        self._busy.discard(line)
        if isinstance(outcome, Exception):
            task = asyncio.get_running_loop().create_task(self._mend(line, asked, outcome))
            self._mending.add(task)
            task.add_done_callback(self._mending.discard)
            return
        self._idle.append(line)
        asked.heard(outcome)

    async def _mend(self, line: Line, asked: _Asked, error: Exception) -> None:
        """Close a connection that failed; if it was closed while nobody asked, ask again on a new one."""
        outcome: Replies | Exception = error
        try:
            async with asyncio.timeout(asked.give_up_s):
                await self._close(line)
                if isinstance(error, RedisConnectionError) and not self._closed:
                    outcome = await self._ask(await self._connection(), asked.payload, asked.amount)
        except UNREACHABLE as failed:
            outcome = failed
        asked.heard(outcome)

    async def exchange(self, payload: bytes, amount: int) -> Replies:
        """Send packed commands and return their replies; raises as :meth:`ask` does.

        Args:
            payload: Commands, packed.
            amount: How many they are.
        """
        if self._idle:
            try:
                return await self._ask(self._idle.pop(), payload, amount)
            except RedisConnectionError:
                pass  # it was closed while nobody asked; the next one is new
        return await self._ask(await self._connection(), payload, amount)

    async def _connection(self) -> Line:
        """Return a connection that nobody uses, made if need be."""
        while not self._idle:
            if self._making is None:
                self._making = asyncio.get_running_loop().create_task(self._make())
                self._making.add_done_callback(_look_at)
            making = self._making
            await asyncio.wait({making})
            if making.cancelled():
                raise RedisConnectionError("the client was closed")
            making.result()
        return self._idle.pop()

    async def _make(self) -> None:
        """Make a connection, whether anybody waits for it or not."""
        try:
            async with asyncio.timeout(self._connect_s):
                self._idle.append(Line(await self._pool.get_connection()))
        finally:
            self._making = None

    async def _ask(self, line: Line, payload: bytes, amount: int) -> Replies:
        try:
            replies = await line.exchange(payload, amount)
        except BaseException:
            # Replies that are still to come must not be taken for those of another request.
            await self._close(line)
            raise
        self._idle.append(line)
        return replies

    async def _close(self, *broken: Line) -> None:
        """Close these connections and those that nobody uses."""
        idle, self._idle = self._idle, []
        for line in (*broken, *idle):
            await line.connection.disconnect(nowait=True)
            await self._pool.release(line.connection)

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        for line in list(self._busy):
            line.hang_up(RedisConnectionError("the client was closed"))
        if self._making is not None:
            self._making.cancel()
            await asyncio.wait({self._making})
        if self._mending:
            await asyncio.wait(self._mending)
        await self._close()
        await self._redis.aclose()


def _look_at(task: asyncio.Task[None]) -> None:
    """Take note of a failure that nobody waits for any more, or asyncio logs it."""
    if not task.cancelled():
        task.exception()
