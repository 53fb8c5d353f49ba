"""The bare round trip: the same bytes over the same kind of connection and loop, counted and thrown away."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import closing

import hiredis

_CHUNK_BYTES = 1 << 18


class Trip(asyncio.Protocol):
    """A connection on which a request is answered when so many bytes have come back."""

    def __init__(self) -> None:
        """Wait for nothing yet."""
        self._transport: asyncio.Transport | None = None
        self._expected: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._got = 0

    @classmethod
    async def to(cls, port: int) -> Trip:
        """Connect to a port of the loopback."""
        _, trip = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return trip

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; asyncio's interface."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's are none of asyncio's classes

    def data_received(self, data: bytes) -> None:
        """Count bytes; asyncio's interface."""
        self._got += len(data)
        expected = self._expected
        while expected and self._got >= expected[0][0]:
            size, future = expected.popleft()
            self._got -= size
            future.set_result(None)

    def ask(self, payload: bytes, size: int) -> asyncio.Future[None]:
        """Send a request whose answer has ``size`` bytes."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._expected.append((size, future))
        if self._transport is not None:
            self._transport.write(payload)
        return future

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


def sizes(port: int, payloads: Sequence[bytes], replies: int) -> list[int]:
    """Return how many bytes answer each payload, which asks for so many replies."""
    found = []
    with closing(socket.create_connection(("127.0.0.1", port))) as connection:
        for payload in payloads:
            parser = hiredis.Reader()
            connection.sendall(payload)
            size = missing = 0
            missing = replies
            while missing:
                data = connection.recv(_CHUNK_BYTES)
                if not data:
                    raise ConnectionError("redis-server closed the connection")
                size += len(data)
                parser.feed(data)
                while missing and parser.gets() is not False:
                    missing -= 1
            found.append(size)
    return found
