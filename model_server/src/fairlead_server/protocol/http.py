"""HTTP/1.1 connections on uvicorn's protocol, without uvicorn's server: whoever accepts them has its own life cycle."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from email.utils import formatdate

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from fairlead_server.protocol.rest import Application

_LOG = logging.getLogger(__name__)
KEEP_ALIVE_S = 65
"""Longer than a gateway keeps an idle connection, so that it is never this side that closes one that is reused."""
_CLOSE = (b"connection", b"close")


class HttpProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP/1.1, with our shape of a refusal for what is no HTTP."""

    def __init__(self, config: uvicorn.Config, state: ServerState, lost: Callable[[], None]) -> None:
        """Make the protocol of one connection.

        Args:
            config: Of all connections.
            state: What all connections share.
            lost: Called when the connection has ended.
        """
        super().__init__(config, state, {})
        self._lost = lost

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection has ended."""
        super().connection_lost(exc)
        # It and this hold each other: else a closed connection waits for the garbage collector.
        self.parser = None  # type: ignore[assignment]  # nobody parses any more
        self._lost()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header, without the white space after its value, which the parser leaves there."""
        super().on_header(name, value.rstrip(b" \t"))

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are not an HTTP request."""
        body = b'{"error":"%s"}' % msg.encode("ascii", "replace")
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        self.transport.close()


Opener = Callable[[uvicorn.Config, ServerState, Callable[[], None]], HttpProtocol]
"""Makes the protocol of one connection."""


class HttpConnections:
    """Every HTTP/1.1 connection of the process; made and used on the event loop."""

    def __init__(self, application: Application, protocol: Opener | None = None) -> None:
        """Make them, none open yet.

        Args:
            application: What answers (ASGI).
            protocol: Makes the protocol of one connection; None for one in which the application answers everything.
        """
        self._protocol = protocol or HttpProtocol
        self._config = uvicorn.Config(
            application,
            http=HttpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._config.load()
        self._state = ServerState()
        self._empty = asyncio.Event()
        self._retiring = False
        self._tick: asyncio.TimerHandle | None = None

    def open(self) -> HttpProtocol:
        """Return the protocol of one new connection."""
        if self._tick is None:
            self._renew_headers()
        return self._protocol(self._config, self._state, self._note_lost)

    @property
    def count(self) -> int:
        """How many connections are open."""
        return len(self._state.connections)

    def retire(self) -> None:
        """Answer with ``connection: close`` from now on."""
        self._retiring = True
        self._renew_headers()

    async def drain(self, deadline_s: float) -> None:
        """Close idle connections, answer what is in flight, and cut off what is not answered in time."""
        self._empty.clear()
        for connection in list(self._state.connections):
            connection.shutdown()
        self._note_lost()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await self._empty.wait()
                await asyncio.gather(*self._state.tasks, return_exceptions=True)
        left = list(self._state.connections)
        if left:
            _LOG.warning("connections cut off connections=%d", len(left))
        for connection in left:
            connection.transport.abort()
        for task in self._state.tasks:
            task.cancel()
        if self._tick is not None:
            self._tick.cancel()

    def _note_lost(self) -> None:
        if not self._state.connections:
            self._empty.set()

    def _renew_headers(self) -> None:
        """Write the headers that every answer has; again each second, for one is the time."""
        date = (b"date", formatdate(time.time(), usegmt=True).encode())
        self._state.default_headers = [date, _CLOSE] if self._retiring else [date]
        if self._tick is not None:
            self._tick.cancel()
        self._tick = asyncio.get_running_loop().call_later(1.0, self._renew_headers)
