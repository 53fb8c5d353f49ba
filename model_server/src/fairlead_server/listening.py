"""Where a process' connections come from: ports of its own here, a parent process in ``workers``."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from fairlead_server.settings import Settings
from fairlead_server.sockets import listen

if TYPE_CHECKING:  # the ports must be open before these are imported
    from prometheus_client import CollectorRegistry

    from fairlead_server.protocol.others import Others
    from fairlead_server.protocol.service import Service

Opener = Callable[[], asyncio.Protocol]
"""Gives the protocol of one new connection."""


@dataclass(frozen=True, slots=True)
class Ways:
    """What becomes of connections."""

    http: Opener
    """For connections to the port of REST."""
    grpc: Opener | None
    """For those to the port of gRPC; None if gRPC's own server listens there."""
    count: Callable[[], int]
    """How many connections are open."""
    stop: Callable[[], None]
    """Ends the process, as a signal does."""


class Entrance(Protocol):
    """Where connections come from; made before the event loop runs, used on it."""

    @property
    def http_port(self) -> int:
        """Port of REST."""

    @property
    def grpc_port(self) -> int:
        """Port of gRPC."""

    def others(self, service: Service, registry: CollectorRegistry) -> Others | None:
        """Return how this process and others show themselves as one; None for a process without others.

        Args:
            service: This process'.
            registry: This process' metrics.
        """

    async def open(self, ways: Ways) -> None:
        """Let connections in."""

    def release_grpc(self) -> int:
        """Give the port of gRPC to a server that opens it itself, and return it; before :meth:`open`."""

    def ready(self) -> None:
        """Say that the model is loaded; connections that came earlier are told that it is not."""

    async def close(self) -> None:
        """Let no more connections in."""

    async def finish(self) -> None:
        """Say the last word; everything has been answered."""


@dataclass(slots=True)
class OwnPorts:
    """Both ports, opened by this process before it does anything that takes time."""

    http: socket.socket
    grpc: socket.socket
    _servers: list[asyncio.Server] = field(default_factory=list)

    @classmethod
    def of(cls, settings: Settings) -> OwnPorts:
        """Open both ports.

        Raises:
            PortTaken: Another program listens on one.
        """
        grpc = listen(settings.host, settings.grpc_port, "--grpc-port")
        return cls(listen(settings.host, settings.http_port, "--http-port"), grpc)

    @property
    def http_port(self) -> int:
        """Port of REST."""
        return _port_of(self.http)

    @property
    def grpc_port(self) -> int:
        """Port of gRPC."""
        return _port_of(self.grpc)

    def others(self, _service: Service, _registry: CollectorRegistry) -> None:
        """There are none."""

    async def open(self, ways: Ways) -> None:
        """Let connections in; see :meth:`Entrance.open`."""
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(ways.http, sock=self.http))
        if ways.grpc is not None:
            self._servers.append(await loop.create_server(ways.grpc, sock=self.grpc))

    def release_grpc(self) -> int:
        """Close the port of gRPC, so that another server can open it, and return it."""
        port = self.grpc_port
        self.grpc.close()
        return port

    def ready(self) -> None:
        """Nobody needs to know: probes ask."""

    async def close(self) -> None:
        """Let no more connections in."""
        for server in self._servers:
            server.close()

    async def finish(self) -> None:
        """There is nobody to tell."""


def _port_of(listening: socket.socket) -> int:
    port: int = listening.getsockname()[1]
    return port
