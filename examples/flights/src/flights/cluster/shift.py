"""Where the present lies in 2013: the replay months, repeated for ever in whole weeks.

A cluster's servers have a real clock, and features expire. So what happened in the eight weeks from 1 November 2013
happens again every eight weeks, to the second: on the same weekday and at the same hour (UTC). What was known before
happened once, in 2013. Everything follows from the time alone, so nobody has to decide or to remember a shift.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from fairlead.clock import to_us
from flights.features import REPLAY_START

START_US = to_us(REPLAY_START)
PERIOD_US = timedelta(weeks=8) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Part of the year 2013, and by how much later it happens. Times are microseconds since 1970-01-01 UTC."""

    after_us: int | None
    """Its start in 2013, excluded; None is ever since."""
    until_us: int
    """Its end in 2013, included."""
    shift_us: int


def shift_us(time_us: int) -> int:
    """Return how much later than in 2013 things happen at ``time_us``: whole weeks, in microseconds."""
    return max(_cycle(time_us), 0) * PERIOD_US


def in_2013(time_us: int) -> int:
    """Return the time in 2013 that ``time_us`` repeats; microseconds since 1970-01-01 UTC, both."""
    return time_us - shift_us(time_us)


def stretches(after_us: int | None, until_us: int) -> Iterator[Stretch]:
    """Yield what happened in ``(after, until]``, oldest first, as parts of 2013.

    Of repetitions that are over, only the last is given: it has the same keys as any before, with later rows.

    Args:
        after_us: Start of the time, excluded; None is ever since.
        until_us: End of the time, included.
    """
    if after_us is None or after_us < START_US:
        yield Stretch(after_us, min(until_us, START_US), 0)
    began = 0 if after_us is None else max(_cycle(after_us), 0)
    ended = _cycle(until_us)
    for cycle in range(max(began, ended - 1), ended + 1):
        shift = cycle * PERIOD_US
        after = START_US if after_us is None else max(after_us - shift, START_US)
        yield Stretch(after, min(until_us - shift, START_US + PERIOD_US), shift)


def _cycle(time_us: int) -> int:
    """Return the number of the repetition that a time is in: its start is excluded, its end included."""
    return (time_us - START_US - 1) // PERIOD_US
