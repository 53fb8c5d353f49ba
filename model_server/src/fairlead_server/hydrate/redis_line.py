"""A connection to Redis as a request sees it: one write, and one callback with all replies.

redis-py makes the connection, which is its part: names, TLS, a password, Sentinel's master. Then its transport is
given a protocol of ours, without the streams, tasks and timeouts between a caller of redis-py and its socket; the
former protocol still hears that the connection is lost, so that redis-py can close it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError

Replies = list[Any]
"""By command: values of the fields, or the error that stands in for them."""

Heard = Callable[[Replies | Exception], None]
"""Told replies, or why there are none."""


class Line(asyncio.Protocol):
    """A connection that redis-py has made, used by one request at a time."""

    def __init__(self, connection: Any) -> None:
        """Take a connection's transport over; nothing may be under way on it.

        Args:
            connection: One of ``redis.asyncio``, connected.
        """
        self.connection = connection
        """Whose transport this is; it must be asked for nothing but to be closed."""
        self._transport: Any = connection._writer.transport  # noqa: SLF001 -- redis-py has no public name for it
        self._former: Any = self._transport.get_protocol()
        self._parser: Any = hiredis.Reader(protocolError=InvalidResponse, replyError=self._error)
        self._error_of: Any = connection._parser.parse_error  # noqa: SLF001 -- as above
        self._replies: Replies = []
        self._amount = 0
        self._heard: Heard | None = None
        self._lost: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._transport.set_protocol(self)

    def send(self, payload: bytes, amount: int, heard: Heard) -> None:
        """Send packed commands.

        Args:
            payload: Commands, packed.
            amount: How many they are.
            heard: Told their replies, or the error by which the connection was lost, in a later turn of the event loop.
        """
        if self._lost is not None:
            self._loop.call_soon(heard, self._lost)
            return
        self._replies, self._amount, self._heard = [], amount, heard
        self._transport.write(payload)

    def exchange(self, payload: bytes, amount: int) -> asyncio.Future[Replies]:
        """Send as :meth:`send` does; the future has what is heard."""
        future: asyncio.Future[Replies] = self._loop.create_future()
        self.send(payload, amount, partial(_settle, future))
        return future

    def hang_up(self, error: Exception) -> None:
        """Close the connection and tell whoever waits why."""
        self._fail(error)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take bytes; asyncio's interface."""
        parser, replies = self._parser, self._replies
        parser.feed(data)
        try:
            while (reply := parser.gets()) is not False:
                replies.append(reply)
        except RedisError as error:
            self.hang_up(error)
            return
        if len(replies) < self._amount:
            return
        heard = self._heard
        if heard is None or len(replies) > self._amount:
            self.hang_up(RedisConnectionError("the server said something that nobody had asked for"))
            return
        if self._lost is not None:
            self.hang_up(self._lost)
            return
        self._heard = None
        heard(replies)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail whoever waits; asyncio's interface."""
        self._former.connection_lost(error)
        self._fail(RedisConnectionError("the connection was closed"))

    def pause_writing(self) -> None:
        """Tell the former protocol; asyncio's interface."""
        self._former.pause_writing()

    def resume_writing(self) -> None:
        """Tell the former protocol; asyncio's interface."""
        self._former.resume_writing()

    def _error(self, text: str) -> Exception:
        """Return the error that a reply is; some say that nothing more is to be had here."""
        error: Exception = self._error_of(text)
        if isinstance(error, RedisConnectionError):
            self._lost = error
        return error

    def _fail(self, error: Exception) -> None:
        self._lost = self._lost or error
        heard, self._heard = self._heard, None
        if heard is not None:
            heard(self._lost)


def _settle(future: asyncio.Future[Replies], outcome: Replies | Exception) -> None:
    if future.done():  # nobody waits any more
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
