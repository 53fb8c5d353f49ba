"""A gateway's log by minutes of its own time, and what of each minute is told. Pure.

What is told of a minute follows from the log alone: whoever reads it again tells the same, under the same names and
numbers, and the ledger takes it once. So nothing has to be remembered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from fairlead.feedback.gateway import HEARTBEAT, gateway_name
from fairlead.feedback.keys import KeyRing, deployment_of
from fairlead.feedback.messages import MOST_EXPOSURES, ExposureReport
from fairlead.route import RouteKey
from fairlead_operator.platforms.unanswered import Unanswered, read_line, report_of
from fairlead_operator.runtime.keys import ObjectKey

MINUTE_US: Final = 60_000_000
MARK: Final = {"fairlead": "unanswered"}
"""What tells our lines from all others of a gateway's log."""
MOST_LINES: Final = 100_000
"""Of one minute of one log that are kept."""
PARTS: Final = 64
"""How many reports one minute may have; the number of a report is its minute times this, and its place in it."""

_MARKED: Final = json.dumps(MARK["fairlead"]).encode()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Told:
    """A deployment of which a ledger is told."""

    deployment: ObjectKey
    salt: str
    """Of the experiment under way."""
    ledger: str
    """URL."""
    api_key: str | None
    """Of role server; None where the ledger asks for none of us."""
    ring: KeyRing
    """Of the deployment."""
    keys: tuple[RouteKey, ...]
    """What its experiment headers are signed with."""


def time_us(line: bytes) -> int | None:
    """Return when a line was written, as the API tells it in front; None if it does not.

    Microseconds since 1970-01-01 UTC, rounded down.
    """
    stamp, space, _ = line.partition(b" ")
    try:
        when = datetime.fromisoformat(stamp.decode("ascii")) if space else None
    except ValueError:
        return None
    return (when - _EPOCH) // _MICROSECOND if when is not None and when.tzinfo is not None else None


def minute_of(at_us: int) -> int:
    """Return the minute of a time, since 1970-01-01 UTC."""
    return at_us // MINUTE_US


@dataclass(slots=True)
class Minutes:
    """Our lines of a log, by minute, from the first that is not closed. Lines may come twice and in any order."""

    open: int
    """The first minute that is not closed."""
    late: int = 0
    """Lines that came when their minute was closed."""
    lost: int = 0
    """Lines that found no room."""
    _lines: dict[int, set[bytes]] = field(default_factory=dict)
    _closed: set[bytes] = field(default_factory=set)
    """Lines of the minute that was closed last."""

    def take(self, line: bytes) -> int | None:
        """Take in a line, with its time in front; return when it was written."""
        at_us = time_us(line)
        if at_us is None or _MARKED not in line:
            return at_us
        minute = minute_of(at_us)
        if minute < self.open:
            self.late += minute == self.open - 1 and line not in self._closed
            return at_us
        lines = self._lines.setdefault(minute, set())
        if len(lines) < MOST_LINES:
            lines.add(line)
        else:
            self.lost += line not in lines
        return at_us

    def close(self) -> tuple[int, list[bytes]]:
        """Close the open minute; return it with its lines, which the API dates in letters that sort."""
        minute = self.open
        self._closed = self._lines.pop(minute, set())
        self.open += 1
        return minute, sorted(self._closed)

    def rest(self) -> Iterator[tuple[int, list[bytes]]]:
        """Close every minute that has lines: nothing will be added to the log."""
        while self._lines:
            self.open = min(self._lines)
            yield self.close()


def reports_of(lines: Iterable[bytes], minute: int, told: Told, instance: str) -> tuple[list[ExposureReport], int]:
    """Return what a ledger is told of a whole minute, and how many lines have no room in it.

    Args:
        lines: Of that minute, in order.
        minute: Since 1970-01-01 UTC.
        told: Of whom.
        instance: Names one life of a gateway's process.
    """
    by_salt: dict[str, list[Unanswered]] = {}
    for request in _requests(lines, told):
        by_salt.setdefault(request.route.salt, []).append(request)
    reports: list[ExposureReport] = []
    lost = 0
    for salt, requests in sorted(by_salt.items()):
        name, first_us = gateway_name(salt, instance), minute * MINUTE_US
        parts = [requests[begin : begin + MOST_EXPOSURES] for begin in range(0, len(requests), MOST_EXPOSURES)]
        lost += sum(map(len, parts[PARTS:]))
        reports += [
            report_of(some, lambda _: told.ring, server=name, sequence=minute * PARTS + place, now_us=first_us)
            for place, some in enumerate(parts[:PARTS])
        ]
    return reports, lost


def heartbeat(told: Told, instance: str) -> ExposureReport:
    """Return the report that says that the log is read, and nothing else."""
    return ExposureReport(server=gateway_name(told.salt, instance), sequence=HEARTBEAT)


def _requests(lines: Iterable[bytes], told: Told) -> Iterator[Unanswered]:
    keys: Mapping[str, RouteKey] = {key.id: key for key in told.keys}
    name = f"{told.deployment.namespace}/{told.deployment.name}"
    for line in lines:
        request = read_line(line.partition(b" ")[2], keys, at_us=time_us(line))
        if request is not None and deployment_of(request.route.salt) == name:
            yield request
