"""A connection without a socket: what a protocol writes is kept, and what it closes is told."""

from __future__ import annotations

import asyncio
from typing import Any, cast


class Wire(asyncio.Transport):
    """The server's side of a connection."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        """Connect ``protocol``."""
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = bytearray()
        self.lost = False
        self._closing = False
        self._protocol = protocol
        protocol.connection_made(self)

    def feed(self, data: bytes) -> None:
        """Let bytes arrive, unless the connection is closed."""
        if data and not self._closing:
            self._protocol.data_received(data)

    def hang_up(self) -> None:
        """End the connection from the client's side."""
        if not self.lost:
            self._closing = self.lost = True
            self._protocol.connection_lost(None)

    def write(self, data: Any) -> None:
        """Keep what is written."""
        if not self._closing:
            self.written += data

    def close(self) -> None:
        """End the connection once this turn is over."""
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.hang_up)

    abort = close

    def is_closing(self) -> bool:
        """Return whether the connection is ending or has ended."""
        return self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Go on with another protocol."""
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return self._protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: there is always room."""

    def get_write_buffer_size(self) -> int:
        """Return 0: nothing waits."""
        return 0

    def pause_reading(self) -> None:
        """Do nothing: what is fed has arrived already."""

    def resume_reading(self) -> None:
        """Likewise."""

    def is_reading(self) -> bool:
        """Return that bytes are taken."""
        return not self._closing
