"""Where reports go: to the ledger over HTTP, or the same bodies to Kafka where the server is told so.

The libraries of either are imported, in a thread, when the first report is sent: httpx alone takes a third of the
time in which a server starts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from fairlead.feedback.serving import Feedback


class Reception(StrEnum):
    """What became of an attempt to send a report."""

    TAKEN = "taken"
    REFUSED = "refused"
    """It will never be taken."""
    FAILED = "failed"
    """It may be taken another time."""
    POSTPONED = "postponed"
    """It may be taken another time, after the others: this very report may be what cannot be taken."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt."""

    reception: Reception
    reason: str = ""
    """What went wrong, for a log; no secret, no line break."""
    wait_s: float = 0.0
    """What the other side asks to wait for at least."""


class Sink(Protocol):
    """Takes reports."""

    async def send(self, feedback: Feedback, body: bytes, deadline_s: float) -> Delivery:
        """Send one report.

        Args:
            feedback: Where to, and with which key.
            body: An ``ExposureReport`` as JSON, gzipped.
            deadline_s: Longest wait for an answer.
        """

    async def close(self) -> None:
        """Let go of connections."""


class CarrierSink:
    """HTTP, or Kafka as long as the server is told of one."""

    def __init__(self) -> None:
        """Make the sink; nothing is connected, and nothing of Kafka loaded yet."""
        self._http: Sink | None = None
        self._kafka: Sink | None = None

    async def send(self, feedback: Feedback, body: bytes, deadline_s: float) -> Delivery:
        """Send one report; see :class:`Sink`."""
        if feedback.kafka is None:
            if self._http is None:
                self._http = await asyncio.to_thread(_http)
            return await self._http.send(feedback, body, deadline_s)
        if self._kafka is None:
            self._kafka = await asyncio.to_thread(_kafka)
        return await self._kafka.send(feedback, body, deadline_s)

    async def close(self) -> None:
        """Close what is open."""
        for sink in (self._http, self._kafka):
            if sink is not None:
                await sink.close()


def _http() -> Sink:
    from fairlead_server.exposure.http_sink import HttpSink  # noqa: PLC0415 -- its library is loaded where it is used

    return HttpSink()


def _kafka() -> Sink:
    from fairlead_server.exposure.kafka import KafkaSink  # noqa: PLC0415 -- its library is loaded where it is used

    return KafkaSink()
