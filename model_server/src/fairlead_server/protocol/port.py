"""One port for HTTP/1.1 and HTTP/2: a connection's first bytes tell which it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_Opener = Callable[[], asyncio.Protocol]
_PREFACE: Final = b"PRI "
"""HTTP/2 begins with a method that HTTP/1.1 does not have."""
_SILENCE_S: Final = 65.0


class FirstBytes(asyncio.Protocol):
    """Waits until it is clear what a client speaks, and leaves the connection to that."""

    def __init__(self, http: _Opener, grpc: _Opener) -> None:
        """Wait for a transport.

        Args:
            http: Gives the protocol of an HTTP/1.1 connection.
            grpc: Gives that of an HTTP/2 connection.
        """
        self._http = http
        self._grpc = grpc
        self._transport: asyncio.BaseTransport | None = None
        self._received = b""
        self._silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport
        self._silence = asyncio.get_running_loop().call_later(_SILENCE_S, transport.close)

    def data_received(self, data: bytes) -> None:
        """Look at what the client says."""
        received = self._received = self._received + data
        if len(received) >= len(_PREFACE) or not _PREFACE.startswith(received):
            self._choose(self._grpc if received.startswith(_PREFACE) else self._http).data_received(received)

    def eof_received(self) -> bool | None:
        """Leave a client that says no more to HTTP/1.1, which knows what to do with half a request."""
        if not self._received:
            return False
        protocol = self._choose(self._http)
        protocol.data_received(self._received)
        return protocol.eof_received()

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the connection."""
        if self._silence is not None:
            self._silence.cancel()

    def _choose(self, opener: _Opener) -> asyncio.Protocol:
        if self._silence is not None:
            self._silence.cancel()
        protocol = opener()
        transport = self._transport
        if transport is None:  # pragma: no cover -- an event loop says connection_made first
            raise RuntimeError("bytes before a connection")
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        return protocol
