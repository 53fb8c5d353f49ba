"""What an HTTP/2 engine is: one connection without its socket. Bytes go in, gRPC calls come out, and the other way.

An engine knows frames, streams, flow control and gRPC's framing. It knows no methods, no time but ticks, and it never
waits: what it cannot send yet it keeps, within limits, until it is fed again. ``native`` is the ``h2`` crate and
``python`` is hyper-h2; both behave alike, which one suite of tests holds them to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Protocol

from fairlead.route import EXPERIMENT_HEADER

Metadata = list[tuple[str, str]]
"""Names in lower case and values, bytes as Latin-1."""


class Sent(Protocol):
    """Metadata of a call."""

    def get(self, name: str, /) -> str | None:
        """Return a value by its name in lower case, bytes as Latin-1, several joined by commas; None without any."""


Call = tuple[int, str, bytes | None, bool, bool, float | None, Sent | None]
"""A call: stream, path, message, whether that is gzip, whether the answer may be, timeout in seconds, metadata.

The message is None for methods whose requests are streams: their messages follow. Metadata is handed over only if
the marker (:class:`Limits`) is in it: most calls have none that anybody reads.
"""
Message = tuple[int, bytes | None, bool]
"""The next message of a stream, and whether it is gzip; None at the end."""
Cancelled = tuple[int]
"""The client has given up; nothing needs to be answered."""
Event = Call | Message | Cancelled
"""Told apart by their length."""

MIB: Final = 1024**2
TAKEN_BYTES: Final = MIB
"""About the most that :meth:`Engine.take` gives at a time."""
NOT_GRPC: Final = b"over HTTP/2 this port speaks gRPC; REST is HTTP/1.1\n"

_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may do."""

    calls: int = 256
    """Streams at a time."""
    message_bytes: int = 16 * MIB
    """Size of one message, unpacked."""
    header_bytes: int = 16 * 1024
    """Size of a call's headers as HPACK counts them: 32 more for each."""
    window_bytes: int = MIB
    """What a stream may send ahead of being read."""
    connection_window_bytes: int = 4 * MIB
    """What all streams may."""
    held_bytes: int = 64 * MIB
    """Size of messages that are not whole yet and of answers that are not sent yet."""
    resets: int = 1000
    """Calls that may be cancelled at once; the connection ends beyond (ENHANCE_YOUR_CALM)."""
    resets_per_tick: int = 100
    """How many of those are forgiven each tick."""
    message_ticks: int = 30
    """Ticks within which a message must be whole."""
    streaming: tuple[str, ...] = ()
    """Paths of methods whose requests are streams."""
    marker: str = EXPERIMENT_HEADER
    """Name of the header without which metadata is not handed over."""


class Engine(Protocol):
    """One connection."""

    @property
    def closed(self) -> bool:
        """Whether nothing more is received or answered; what :meth:`take` gives is still to be sent."""

    @property
    def greeted(self) -> bool:
        """Whether the client has sent what HTTP/2 clients begin with."""

    @property
    def idle(self) -> bool:
        """Whether no call is being received or answered."""

    @property
    def stalled(self) -> bool:
        """Whether :meth:`feed` is to be called once more, without bytes, after :meth:`take`; forgets it."""

    def feed(self, received: bytes) -> list[Event]:
        """Take bytes of the client's and return what they came to."""

    def reply(self, stream: int, message: bytes, compressed: bool = False, metadata: Metadata | None = None) -> bool:
        """Answer a call with its only message and status OK.

        Args:
            stream: The call's.
            message: Encoded.
            compressed: Whether it is gzip.
            metadata: Of the answer, sent before and after the message.

        Returns:
            Whether it was sent, or will be; False if the call was cancelled.
        """

    def send(self, stream: int, message: bytes) -> bool:
        """Send a message of an answer that is a stream; False if it was cancelled, or its client does not read."""

    def finish(self, stream: int, status: int, text: str = "", metadata: Metadata | None = None) -> bool:
        """End a call with a status.

        Args:
            stream: The call's.
            status: Number of the gRPC code.
            text: Percent-encoded.
            metadata: To be sent with the status.

        Returns:
            As for :meth:`reply`.
        """

    def take(self) -> bytes:
        """Return bytes to send; empty if there are none."""

    def tick(self) -> None:
        """Let a second pass."""

    def shutdown(self) -> None:
        """Ask the client to open no more streams (GOAWAY); the engine closes once all are answered."""


def timeout_s(value: str) -> float | None:
    """Return the seconds of a ``grpc-timeout``; None if it is none."""
    found = _TIMEOUT.fullmatch(value)
    return None if found is None else int(found[1]) * _UNITS_S[found[2]]
