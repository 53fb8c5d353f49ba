"""Requests of an experiment that no server has answered: what the gateway knows of them, told to the ledger.

Envoy writes a line for each such request; one that was retried and answered has none. They are errors of the arm that
their unit belongs to. A line is read once: what is about to be told is remembered first, so that it is told again
under the same sequence after any end, and the ledger counts it once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fairlead.assignment import assign
from fairlead.feedback.keys import KeyRing
from fairlead.feedback.messages import MOST_EXPOSURES, Block, Exposure, ExposureReport, UnitCounts
from fairlead.route import ExperimentRoute, RouteError, RouteKey, verify
from fairlead_operator.platforms.local.state import write_whole

_Counted = TypeVar("_Counted", UnitCounts, Block)

MOST_BYTES = 4 * 2**20
"""Of the log read at once."""
_MOST_LOG_BYTES = 64 * 2**20
_MINUTE_US = 60_000_000


class Position(BaseModel):
    """How far a log has been told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: str
    """Who tells: names the log, anew when it begins anew."""
    sequence: int = Field(default=0, ge=0)
    """Of the next report."""
    start: int = Field(default=0, ge=0)
    """Bytes told before it."""
    end: int | None = None
    """Where the report that is being told ends, in bytes; None if none is."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """One request."""

    route: ExperimentRoute
    unit: str | None
    """None if it cannot be read from the log."""
    latency_us: int
    """From its arrival until the gateway gave up."""


def read_lines(lines: Iterable[bytes], key: RouteKey) -> list[Unanswered]:
    """Return the requests of a log's lines; a line that is not whole or not signed by ``key`` is none."""
    return [request for line in lines if (request := _request(line, {key.id: key})) is not None]


def _request(line: bytes, keys: Mapping[str, RouteKey]) -> Unanswered | None:
    try:
        fields = json.loads(line)
        route = verify(fields["experiment"], keys)
        latency_us = int(fields["duration_ms"]) * 1000
    except (ValueError, KeyError, TypeError, RouteError):
        return None
    unit = fields.get("unit")
    known = isinstance(unit, str) and assign(unit, route.salt, route.layout) == route.variant
    return Unanswered(route, unit if known else None, latency_us)


def report_of(
    requests: Iterable[Unanswered], root: KeyRing, *, server: str, sequence: int, now_us: int
) -> ExposureReport:
    """Return what the ledger is told of requests: an error each, and that their units were drawn.

    Args:
        requests: At most ``MOST_EXPOSURES``.
        root: The root ring.
        server: Who tells.
        sequence: Number of the report.
        now_us: Microseconds since 1970-01-01 UTC, by the experiment's clock.
    """
    exposures: dict[tuple[str, int, str], Exposure] = {}
    counts: dict[tuple[str, int, str, str], UnitCounts] = {}
    blocks: dict[tuple[str, int, str], Block] = {}
    for request in requests:
        route = request.route
        arm = {"salt": route.salt, "phase": route.phase, "variant": route.variant, "revision": route.revision}
        told = {"requests": 1, "errors": 1, "latency_us": request.latency_us}
        block = Block.model_validate({**arm, "minute": now_us // _MINUTE_US, **told})
        at = (route.salt, route.phase, route.revision)
        blocks[at] = _sum(blocks.get(at), block)
        if request.unit is not None:
            ring = root.of(route.salt.rpartition("/")[0])
            digest = ring.unit(request.unit.encode(), route.salt).hex()
            exposures[(*at[:2], digest)] = Exposure.model_validate({**arm, "unit": digest, "at_us": now_us})
            count = UnitCounts.model_validate({**arm, "unit": digest, **told})
            counts[(*at, digest)] = _sum(counts.get((*at, digest)), count)
    return ExposureReport(
        server=server,
        sequence=sequence,
        exposures=tuple(exposures.values()),
        counts=tuple(counts.values()),
        blocks=tuple(blocks.values()),
    )


def _sum(before: _Counted | None, one: _Counted) -> _Counted:
    if before is None:
        return one
    sums = {name: getattr(before, name) + getattr(one, name) for name in ("requests", "errors", "latency_us")}
    return one.model_copy(update=sums)


class UnansweredLog:
    """A gateway's log of unanswered requests, and how far it has been told."""

    def __init__(self, log: Path, *, key: RouteKey, root: KeyRing, new_id: Callable[[], str]) -> None:
        """Take up where the last run ended.

        Args:
            log: What the gateway writes; beside it, what is remembered.
            key: Signs experiment headers.
            root: The root ring.
            new_id: Makes a name that was never given before.
        """
        self._log = log
        self._key = key
        self._root = root
        self._new_id = new_id
        self._file = log.with_suffix(".told.json")
        self._position = self._remembered() or self._begun()

    def begin_anew_if_large(self) -> None:
        """Empty a large log that has been told whole; nobody may be writing it."""
        size = self._log.stat().st_size if self._log.exists() else 0
        if size > _MOST_LOG_BYTES and self._position.end is None and size == self._position.start:
            self._log.unlink()
            self._write(Position(server=self._new_id()))

    def next_report(self, now_us: int) -> ExposureReport | None:
        """Return what is to be told now; None if there is nothing. It is the same one until :meth:`told`."""
        position = self._position
        lines = self._lines(position)
        if not lines:
            return None
        end = position.start + sum(map(len, lines))
        if position.end is None:
            self._write(position.model_copy(update={"end": end}))
        requests = read_lines(lines, self._key)
        return report_of(requests, self._root, server=position.server, sequence=position.sequence, now_us=now_us)

    def told(self) -> None:
        """Note that the ledger has taken the report."""
        position = self._position
        if position.end is not None:
            self._write(Position(server=position.server, sequence=position.sequence + 1, start=position.end))

    def _lines(self, position: Position) -> list[bytes]:
        """Return whole lines from where the log was told: those of the report under way, or as many as fit one."""
        try:
            with self._log.open("rb") as log:
                log.seek(position.start)
                read = log.read(MOST_BYTES if position.end is None else position.end - position.start)
        except FileNotFoundError:
            return []
        lines = read[: read.rfind(b"\n") + 1].splitlines(keepends=True)
        return lines if position.end is not None else lines[:MOST_EXPOSURES]

    def _remembered(self) -> Position | None:
        try:
            return Position.model_validate_json(self._file.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def _begun(self) -> Position:
        """Begin at the log's end: what of it was told is not known, and nothing may be told twice."""
        size = self._log.stat().st_size if self._log.exists() else 0
        self._write(Position(server=self._new_id(), start=size))
        return self._position

    def _write(self, position: Position) -> None:
        write_whole(self._file, position.model_dump_json())
        self._position = position
