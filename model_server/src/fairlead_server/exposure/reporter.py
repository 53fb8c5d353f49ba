"""Sends what was tallied to the ledger, beside the requests and never in their way.

Every few seconds the tally becomes reports, each with the next sequence number, and they go to the outbox; from there
they are sent one after the other until the ledger has taken or refused them. While the outbox is full the tally is
left to fill up, and counts what finds no room: so that a request is lost in one place alone, and known to be.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fairlead.clock import Clock
from fairlead.feedback.serving import Feedback
from fairlead.serving import FeedbackReport
from fairlead_server.exposure.outbox import Outbox, Parcel
from fairlead_server.exposure.report import Report, reports_of
from fairlead_server.exposure.sink import Delivery, Reception, Sink
from fairlead_server.exposure.tally import Tally
from fairlead_server.hydrate.thread import WorkerThread
from fairlead_server.metrics import ModelMetrics

_LOG = logging.getLogger(__name__)

_SELDOM = 5


@dataclass(frozen=True, slots=True)
class Pace:
    """When reports are made and sent."""

    interval_s: float = 2.0
    """Between reports."""
    send_deadline_s: float = 10.0
    """Longest wait for the ledger's answer."""

    def gather_s(self, failures: int) -> float:
        """Return the time between reports: longer while the ledger is away, for then they only fill the spool."""
        return self.interval_s * (_SELDOM if failures else 1)

    def pause_s(self, failures: int) -> float:
        """Return the longest pause after so many failures in a row: 0.5 s after the first, 30 s at most, by default."""
        return self.interval_s * min(2.0 ** (min(failures, 32) - 3), 15.0)


class Reporter:
    """One task that reports; made and used on the event loop."""

    def __init__(
        self,
        *,
        server: str,
        tally: Tally,
        outbox: Callable[[], Outbox],
        sink: Sink,
        feedback: Callable[[], Feedback | None],
        clock: Clock,
        metrics: ModelMetrics,
        pace: Pace,
        chance: random.Random,
    ) -> None:
        """Make the reporter; :meth:`start` starts it.

        Args:
            server: Names the process, anew with each start.
            tally: What is reported.
            outbox: Opens what keeps reports until they are taken; called in a thread.
            sink: Where they go.
            feedback: What the server is told now.
            clock: The time of the last success, and of reports' names.
            metrics: Where attempts are counted.
            pace: When.
            chance: Spreads what many servers would do at once.
        """
        self._server = server
        self._tally = tally
        self._open = outbox
        self._outbox: Outbox | None = None
        self._sink = sink
        self._feedback = feedback
        self._told: Feedback | None = None
        self._clock = clock
        self._metrics = metrics
        self._pace = pace
        self._chance = chance
        self._thread = WorkerThread("spool")
        self._closing = asyncio.Event()
        self._unstored: deque[Report] = deque()
        self._sequence = 0
        self._failures = 0
        self._failure = ""
        self._last_success_us = 0
        self._sending: asyncio.Task[Delivery] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Report from now on."""
        self._task = asyncio.create_task(self._run())

    async def close(self, deadline_s: float) -> None:
        """Report what is left, for as long as the deadline allows; what is not taken stays in the outbox."""
        if self._task is None:
            return
        self._closing.set()
        if self._sending is not None:
            self._sending.cancel()
        try:
            async with asyncio.timeout(deadline_s):
                await self._task
                await self._flush()
        except TimeoutError:
            self._failure = self._failure or "the deadline passed"
        if self.report.waiting:
            _LOG.warning("reports left at the end waiting=%d reason=%s", self.report.waiting, self._failure)
        self._thread.close()
        await self._sink.close()

    @property
    def report(self) -> FeedbackReport:
        """What the server tells about its reports."""
        feedback = self._feedback()
        return FeedbackReport(
            configured=feedback is not None,
            digest=feedback.digest if feedback is not None else "",
            waiting=len(self._outbox or ()) + len(self._unstored),
            dropped=self._tally.dropped_total,
            refused=self._metrics.reports(Reception.REFUSED),
            last_success_us=self._last_success_us,
            failure=self._failure,
        )

    @property
    def waiting_bytes(self) -> int:
        """Size of the reports that wait."""
        kept = 0 if self._outbox is None else self._outbox.size_bytes
        return kept + sum(len(report.body) for report in self._unstored)

    @property
    def spool_failures(self) -> int:
        """How often the spool's folder could not be written or read."""
        return 0 if self._outbox is None else self._outbox.disk_failures

    async def _run(self) -> None:
        now_s = asyncio.get_running_loop().time
        gather_s = now_s() + self._pace.interval_s * self._chance.random()
        send_s = 0.0
        while not self._closing.is_set():
            due = min(gather_s, send_s) if self._may_send else gather_s
            if due > now_s():
                await self._pause(due - now_s())
                continue
            try:
                if gather_s <= now_s():
                    gather_s = now_s() + self._pace.gather_s(self._failures)
                    await self._gather()
                else:
                    send_s = now_s() + await self._send()
            except Exception as error:  # noqa: BLE001 -- the top of the loop: reporting goes on, and it counts
                self._metrics.count_report(Reception.FAILED)
                send_s = now_s() + self._backed_off(f"{type(error).__name__} in the reporter")

    @property
    def _may_send(self) -> bool:
        return self._outbox is None or (self._told is not None and len(self._outbox) > 0)

    async def _pause(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._closing.wait()
        except TimeoutError:
            return

    async def _flush(self) -> None:
        await self._gather()
        self._failures = 0
        while self._told is not None and self._outbox and not self._failures:
            await self._send(last=True)

    async def _opened(self) -> Outbox:
        if self._outbox is None:
            self._outbox = await self._thread.submit(self._open)
            if self._outbox:
                _LOG.info("reports found in the spool waiting=%d", len(self._outbox))
        return self._outbox

    async def _gather(self) -> None:
        """Make reports of what was tallied, unless earlier ones have found no room yet."""
        self._told = self._feedback() or self._told
        outbox = await self._opened()
        if not self._unstored:
            reports = await reports_of(self._tally.take(), self._server, self._sequence)
            self._sequence += len(reports)
            self._unstored.extend(reports)
        while self._unstored:
            report = self._unstored[0]
            name = f"{self._clock.now_us():020d}-{self._server}-{report.sequence:010d}"
            if not await self._thread.submit(partial(outbox.add, name, report.body)):
                return
            self._unstored.popleft()

    async def _send(self, *, last: bool = False) -> float:
        """Send the next report and return the seconds to wait before another.

        Args:
            last: Whether to send even while the reporter is closing.
        """
        outbox = await self._opened()
        found = await self._thread.submit(outbox.first)
        if found is None or self._told is None or (self._closing.is_set() and not last):
            return 0.0
        parcel, body = found
        self._sending = asyncio.create_task(self._sink.send(self._told, body, self._pace.send_deadline_s))
        await asyncio.wait({self._sending})
        sending, self._sending = self._sending, None
        if sending.cancelled():
            return 0.0
        return await self._settle(outbox, parcel, sending.result())

    async def _settle(self, outbox: Outbox, parcel: Parcel, delivery: Delivery) -> float:
        self._metrics.count_report(delivery.reception)
        match delivery.reception:
            case Reception.TAKEN:
                await self._thread.submit(partial(outbox.remove, parcel))
                self._recovered()
                return 0.0
            case Reception.REFUSED:
                _LOG.error("report refused report=%s reason=%s", parcel.name, delivery.reason)
                await self._thread.submit(partial(outbox.remove, parcel))
                return 0.0
            case Reception.POSTPONED:
                await self._thread.submit(partial(outbox.postpone, parcel))
        return max(self._backed_off(delivery.reason), delivery.wait_s)

    def _recovered(self) -> None:
        if self._failures:
            _LOG.info("ledger takes reports again failures=%d", self._failures)
        self._failures, self._failure = 0, ""
        self._last_success_us = self._clock.now_us()

    def _backed_off(self, reason: str) -> float:
        """Return how long to wait after one more failure; a reason is logged when it is another one."""
        if reason != self._failure:
            _LOG.warning("report not sent reason=%s", reason)
        self._failure = reason
        self._failures += 1
        return self._pace.pause_s(self._failures) * (0.5 + self._chance.random() / 2)
