"""Ports for HTTP/1.1 and HTTP/2 alike: how many connections there may be, and what each speaks by its first bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

_PREFACE: Final = b"PRI "
"""HTTP/2 begins with a method that HTTP/1.1 does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What connections may take before it is known what they speak, and how many there may be."""

    connections: int = 8192
    """Of the process, on all its ports; one more is closed at once."""
    silence_s: float = 65.0
    """From the start until the first byte."""
    greeting_s: float = 10.0
    """From the first byte until it is clear what is spoken."""


class Connections(Protocol):
    """Every connection of one protocol."""

    def open(self) -> asyncio.Protocol:
        """Return the protocol of one new connection."""

    @property
    def count(self) -> int:
        """How many are open."""


class Door:
    """Every connection of the process, from where it comes in; made and used on the event loop. A metrics collector."""

    def __init__(self, http: Connections, grpc: Connections | None, bounds: Bounds) -> None:
        """Let nobody in yet.

        Args:
            http: Takes HTTP/1.1.
            grpc: Takes HTTP/2; None where gRPC has a server of its own.
            bounds: What connections may take.
        """
        self.bounds = bounds
        self._http = http
        self._grpc = grpc
        self._turned_away = 0
        self._waiting: set[FirstBytes] = set()

    def open(self) -> FirstBytes:
        """Return the protocol of one new connection."""
        return FirstBytes(self)

    @property
    def count(self) -> int:
        """How many connections are open."""
        others = 0 if self._grpc is None else self._grpc.count
        return self._http.count + others + len(self._waiting)

    def admit(self, connection: FirstBytes) -> bool:
        """Return whether there is room for one more connection; it is counted either way."""
        if self.count >= self.bounds.connections:
            self._turned_away += 1
            return False
        self._waiting.add(connection)
        return True

    def forget(self, connection: FirstBytes) -> None:
        """Count a connection no more, which has ended or is counted elsewhere."""
        self._waiting.discard(connection)

    def protocol_for(self, received: bytes) -> asyncio.Protocol:
        """Return what speaks as a client does who began like this."""
        if self._grpc is not None and received.startswith(_PREFACE):
            return self._grpc.open()
        return self._http.open()

    def watch(self, registry: CollectorRegistry) -> Door:
        """Show how many connections there are in ``registry``, and return the door."""
        registry.register(self)
        return self

    def collect(self) -> Iterator[Metric]:
        """Yield what is counted."""
        yield GaugeMetricFamily("fairlead_connections", "Open connections, of all protocols.", value=self.count)
        yield CounterMetricFamily(
            "fairlead_connections_turned_away",
            "Connections that were closed at once because there were as many as may be.",
            value=self._turned_away,
        )


class FirstBytes(asyncio.Protocol):
    """Waits until it is clear what a client speaks, and leaves the connection to that."""

    def __init__(self, door: Door) -> None:
        """Wait for a transport that came through ``door``."""
        self._door = door
        self._transport: asyncio.BaseTransport | None = None
        self._received = b""
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, if there is room."""
        if self._door.admit(self):
            self._transport = transport
            self._wait(self._door.bounds.silence_s)
        else:
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Look at what the client says."""
        if not self._received:
            self._wait(self._door.bounds.greeting_s)
        received = self._received = self._received + data
        if len(received) >= len(_PREFACE) or not _PREFACE.startswith(received):
            self._leave().data_received(received)

    def eof_received(self) -> bool | None:
        """Leave a client that says no more to HTTP/1.1, which knows what to do with half a request."""
        if not self._received:
            return False
        protocol = self._leave()
        protocol.data_received(self._received)
        return protocol.eof_received()

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the connection."""
        self._end()

    def _wait(self, longest_s: float) -> None:
        """Close the connection after so long, unless something happens before."""
        if self._transport is None:  # it was not let in
            return
        if self._patience is not None:
            self._patience.cancel()
        self._patience = asyncio.get_running_loop().call_later(longest_s, self._transport.close)

    def _leave(self) -> asyncio.Protocol:
        """Give the connection to what the client speaks."""
        self._end()
        protocol = self._door.protocol_for(self._received)
        transport = self._transport
        if transport is None:  # pragma: no cover -- an event loop says connection_made first
            raise RuntimeError("bytes before a connection")
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        return protocol

    def _end(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._door.forget(self)
