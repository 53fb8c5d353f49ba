"""What keeps the store at the present: once, as a Job does, or for as long as it runs, as a Deployment does."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from fairlead.clock import Clock, from_us
from flights.cluster.online import LivePublisher, OnlineError
from flights.cluster.shift import in_2013

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MovedClock:
    """A clock that is off by a constant: tests and demonstrations at another time."""

    clock: Clock
    ahead_us: int

    def now_us(self) -> int:
        """Return microseconds since 1970-01-01 UTC."""
        return self.clock.now_us() + self.ahead_us


def materialize(
    publisher: LivePublisher, clock: Clock, stopping: threading.Event, *, attempts: int = 30, every_s: float = 2.0
) -> None:
    """Write everything known at present; wait for a store that does not answer yet.

    Raises:
        OnlineError: It does not answer in the last attempt either, or this program is to stop.
    """
    for attempt in range(1, attempts + 1):
        now_us = clock.now_us()
        try:
            rows = publisher.publish(now_us, anew=True)
        except OnlineError as error:
            _LOG.warning("not written attempt=%d of=%d reason=%s", attempt, attempts, error)
            if attempt == attempts or stopping.wait(every_s):
                raise
        else:
            _LOG.info("written rows=%d now=%s in_2013=%s", rows, _text(now_us), _text(in_2013(now_us)))
            return


def push(publisher: LivePublisher, clock: Clock, stopping: threading.Event, *, every_s: float) -> None:
    """Write what becomes known, as it does, until ``stopping`` is set; a store that fails is tried again."""
    while not stopping.is_set():
        now_us = clock.now_us()
        try:
            rows = publisher.publish(now_us)
        except OnlineError as error:
            _LOG.warning("not published reason=%s", error)
        else:
            if rows:
                _LOG.info("published rows=%d now=%s in_2013=%s", rows, _text(now_us), _text(in_2013(now_us)))
        stopping.wait(every_s)


def _text(time_us: int) -> str:
    return from_us(time_us).isoformat(timespec="milliseconds")
