"""A way to a server that can be slow, half open or cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto


class Way(Enum):
    """What becomes of bytes."""

    OPEN = auto()
    """They are passed on."""
    SWALLOWED = auto()
    """Connections are accepted and nothing comes through, then or later, on any that sees this."""
    SLOW = auto()
    """Answers come late."""
    CUT = auto()
    """Connections are closed as soon as they are used."""


class Proxy:
    """Passes bytes between clients and a server on the loopback, as long as it is told to."""

    def __init__(self, server_port: int, *, delay_s: float = 0.0) -> None:
        self.way = Way.OPEN
        self.port = 0
        self._server_port = server_port
        self._delay_s = delay_s
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def online_store(self) -> dict[str, str]:
        """The block ``online_store`` of a feature_store.yaml."""
        return {"type": "redis", "connection_string": f"127.0.0.1:{self.port}"}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(
                self._pass(reader, server_writer, answers=False), self._pass(server_reader, writer, answers=True)
            )
        except OSError:
            pass
        finally:
            writer.close()
            server_writer.close()
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        swallows = False
        while part := await reader.read(65536):
            swallows = swallows or self.way is Way.SWALLOWED
            if swallows:
                continue
            if self.way is Way.CUT:
                raise ConnectionError
            if self.way is Way.SLOW and answers:
                await asyncio.sleep(self._delay_s)
            writer.write(part)
            await writer.drain()
        writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Listen on a free port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
