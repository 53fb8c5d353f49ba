"""Connections that say what they hear, behind a door with real sockets."""

from __future__ import annotations

import asyncio
from typing import Any


class EchoConnections:
    """Stands for every connection of one protocol."""

    def __init__(self, name: bytes = b"http:", *, stays: bool = False) -> None:
        self.name = name
        self.stays = stays
        self.count = 0

    def open(self) -> asyncio.Protocol:
        """Return the protocol of one connection."""
        return _Echo(self)


class _Echo(asyncio.Protocol):
    """Answers what it hears, once, and closes unless it is to stay."""

    def __init__(self, connections: EchoConnections) -> None:
        self._connections = connections
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._connections.count += 1

    def connection_lost(self, _: Exception | None) -> None:
        self._connections.count -= 1

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._connections.name + data)
        if not self._connections.stays:
            self._transport.close()
