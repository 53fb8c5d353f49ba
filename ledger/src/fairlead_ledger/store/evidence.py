"""From what is kept to evidence: sums over units, made by reading every unit once, in the same order on any database.

What changes only with what is told is remembered until something is told; what changes with time is counted anew.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, Subquery, and_, func, select

from fairlead.experiment.design import Design, Kind, Metric, Source
from fairlead.experiment.evidence import ArmEvidence, Evidence, FirstValues, PhaseEvidence, Sums, Tail, blocks_of
from fairlead.experiment.sums import tempered
from fairlead.experiment.tail import edges_near, tails_of
from fairlead.feedback.gateway import gateway_prefix
from fairlead.feedback.messages import Failure
from fairlead_ledger.store.experiments import Cell, Experiment, cells_of
from fairlead_ledger.store.schema import BLOCKS, CELLS, FAILURES, PENDING, SERVERS, UNIT_SUMS, UNITS

_MINUTE_US = 60_000_000
_MOST_REMEMBERED = 8
MISMATCHED = "AssignmentMismatch"
"""Requests whose unit belongs to another arm."""
BEYOND_CAP = "BeyondRequestsPerUnit"
"""Requests of units that had their share."""
_LATENCY, _ERROR = "latency_ms", "error"

Array = NDArray[np.float64]
_Counts = Mapping[int, int]


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of an experiment, but for what changes with time alone."""

    changes: int
    cells: Mapping[int, Cell]
    arms: Mapping[int, _ArmRead]
    """By the number of the cell."""

    def started(self) -> Mapping[int, int]:
        """Return when each phase began, of those that have."""
        found: dict[int, int] = {}
        for number, arm in self.arms.items():
            if arm.started_us is not None:
                phase = self.cells[number].phase
                found[phase] = min(arm.started_us, found.get(phase, arm.started_us))
        return found


@dataclass(frozen=True, slots=True)
class _ArmRead:
    evidence: ArmEvidence
    exposed_us: Array
    """First exposures, ascending."""
    labelled_us: Array
    """First exposures of the units that have an outcome, ascending."""
    started_us: int | None
    """When the first request was; None before."""

    def aged(self, mature_us: int, pending: int) -> ArmEvidence:
        """Return the evidence with what changes with time.

        Args:
            mature_us: What is older is mature.
            pending: Requests with outcomes that wait.
        """
        mature, labelled = (int(np.searchsorted(one, mature_us)) for one in (self.exposed_us, self.labelled_us))
        return self.evidence.model_copy(
            update={"matured_units": mature, "labelled_units": labelled, "pending_requests": pending}
        )


class EvidenceReader:
    """Makes evidence, and remembers what is slow to make; safe to use from any thread."""

    def __init__(self) -> None:
        """Begin with nothing remembered."""
        self._lock = Lock()
        self._reads: dict[int, _Read] = {}

    def evidence(self, connection: Connection, experiment: Experiment, design: Design, now_us: int) -> Evidence:
        """Return what was seen of an experiment.

        Args:
            connection: In a transaction that sees one state.
            experiment: As read in the same transaction.
            design: Its design.
            now_us: By the experiment's clock: what is older than the outcome window then is mature.
        """
        read = self._read(connection, experiment, design)
        pending = _counted(connection, _pending(experiment.id))
        mature_us = now_us - experiment.window_us
        places = {
            (cell.phase, cell.variant): read.arms[number].aged(mature_us, pending.get(number, 0))
            for number, cell in read.cells.items()
        }
        started = read.started()
        numbers = sorted(started)
        ends = {number: started[later] for number, later in pairwise(numbers)}
        phases = [
            PhaseEvidence(
                number=number,
                started_us=started[number],
                ended_us=ends.get(number),
                arms={arm: places.get((number, arm), ArmEvidence()) for arm in design.arms},
            )
            for number in numbers
        ]
        return Evidence(salt=experiment.salt, phases=tuple(phases))

    def _read(self, connection: Connection, experiment: Experiment, design: Design) -> _Read:
        known = self._reads.get(experiment.id)
        if known is not None and known.changes == experiment.changes:
            return known
        cells = {number: cell for number, cell in cells_of(connection, experiment.id).items() if _is_of(cell, design)}
        read = _Read(experiment.changes, cells, _arms(connection, cells, design))
        with self._lock:
            kept = self._reads if len(self._reads) < _MOST_REMEMBERED else {}
            self._reads = {**kept, experiment.id: read}
        return read


def heard_us(connection: Connection, experiment_id: int) -> int | None:
    """Return the end of the minute of the last request that servers have told of; None if they never have."""
    query = select(func.max(BLOCKS.c.minute)).join(CELLS, CELLS.c.id == BLOCKS.c.cell_id)
    minute = connection.scalar(query.where(CELLS.c.experiment_id == experiment_id))
    return None if minute is None else (int(minute) + 1) * _MINUTE_US


def gateway_heard_us(connection: Connection, salt: str) -> int | None:
    """Return when a gateway's log was told of last, for an experiment; None if none ever was."""
    is_of = SERVERS.c.name.startswith(gateway_prefix(salt))
    found = connection.scalar(select(func.max(SERVERS.c.seen_us)).where(is_of))
    return None if found is None else int(found)


def _is_of(cell: Cell, design: Design) -> bool:
    return cell.variant in design.arms and any(phase.number == cell.phase for phase in design.phases)


def _arms(connection: Connection, cells: Mapping[int, Cell], design: Design) -> Mapping[int, _ArmRead]:
    fresh = _counted(connection, _first_exposures(cells))
    edges = _Edges(connection, cells)
    return {number: _Arm(connection, number, design, edges).read(fresh.get(number, 0)) for number in cells}


class _Arm:
    """One arm in one phase, while it is read."""

    def __init__(self, connection: Connection, cell: int, design: Design, edges: _Edges) -> None:
        self._connection = connection
        self._cell = cell
        self._design = design
        self._edges = edges

    def read(self, first_exposures: int) -> _ArmRead:
        """Return all but what changes with time alone.

        Args:
            first_exposures: Units whose first exposure in the whole experiment was here.
        """
        units = _Units.read(self._connection, self._cell)
        metrics, first_values, tails = self._metrics(units)
        evidence = ArmEvidence(
            first_exposures=first_exposures,
            units=int((~np.isnan(units.exposed_us)).sum()),
            requests=int(units.requests.sum()),
            metrics=metrics,
            activity=_sums((units.requests > 0).astype(np.float64), units.requests),
            blocks=self._blocks(),
            first_values=first_values,
            tails=tails,
            errors=int(units.errors.sum()),
            failures=self._failures(),
            left_out=self._left_out(units),
            **self._coverage(units),
        )
        exposed, labelled = (
            np.sort(one[~np.isnan(one)]) for one in (units.exposed_us, units.exposed_us[units.labelled > 0])
        )
        return _ArmRead(evidence, exposed, labelled, self._started_us(exposed))

    def _metrics(self, units: _Units) -> tuple[dict[str, Sums], dict[str, FirstValues], dict[str, tuple[Tail, ...]]]:
        system = {_LATENCY: units.latency_ms, _ERROR: units.errors}
        most = self._design.requests_per_unit
        metrics = {name: _sums(*tempered(units.requests, x, most=most)) for name, x in system.items()}
        first_values, tails = {_ERROR: _first_values(units.first_error)}, {}
        for place, metric in enumerate(self._design.metrics.values()):
            if metric.kind is Kind.QUANTILE:
                tails[metric.name] = self._edges.tails(self._cell, metric, place)
            elif metric.source is not Source.SYSTEM:
                metrics[metric.name], first = self._told(place, metric)
                if metric.kind is Kind.PROPORTION:
                    first_values[metric.name] = _first_values(first)
        return metrics, first_values, tails

    def _coverage(self, units: _Units) -> dict[str, Any]:
        """Return how many of the requests that are old enough have an outcome; nothing where none is expected."""
        if all(metric.source is Source.SYSTEM for metric in self._design.metrics.values()):
            return {}
        most = self._design.requests_per_unit
        matured = np.minimum(units.matured, most)
        labelled = np.minimum(units.labelled, matured)
        return {
            "matured_requests": int(matured.sum()),
            "labelled_requests": int(labelled.sum()),
            "coverage": _sums(matured, labelled),
        }

    def _told(self, place: int, metric: Metric) -> tuple[Sums, Array]:
        """Return the sums of a metric that was told, and the first value of each unit."""
        first_seen = _first_seen(self._edges.cells)
        same_unit = and_(first_seen.c.unit == UNIT_SUMS.c.unit, first_seen.c.place == 1)
        columns = (UNIT_SUMS.c.n, UNIT_SUMS.c.x, UNIT_SUMS.c.first)
        query = select(*columns)
        objective = self._design.objective
        is_adjusted = self._design.covariate and objective and objective.metric.name == metric.name
        if is_adjusted:  # by what was known before any arm did anything to the unit
            query = select(*columns, first_seen.c.covariate).outerjoin_from(UNIT_SUMS, first_seen, same_unit)
        where = (UNIT_SUMS.c.cell_id == self._cell, UNIT_SUMS.c.metric == place)
        n, x, first, *covariate = _columns(self._connection, query.where(*where).order_by(UNIT_SUMS.c.unit))
        return Sums.of(n, x, *covariate), first

    def _blocks(self) -> dict[str, tuple[Sums, ...]]:
        names = ("server_id", "minute", "requests", "latency_us", "errors")
        query = select(*(BLOCKS.c[name] for name in names)).where(BLOCKS.c.cell_id == self._cell)
        query = query.where(BLOCKS.c.requests > 0).order_by(BLOCKS.c.minute, BLOCKS.c.server_id)
        server, minute, requests, latency_us, errors = _columns(self._connection, query)
        system = {_LATENCY: latency_us / 1000, _ERROR: np.minimum(errors, requests)}
        return {name: blocks_of(server, minute, requests, x) for name, x in system.items()}

    def _failures(self) -> dict[Failure, int]:
        query = select(FAILURES.c.failure, func.sum(FAILURES.c.errors)).where(FAILURES.c.cell_id == self._cell)
        rows = self._connection.execute(query.group_by(FAILURES.c.failure).order_by(FAILURES.c.failure))
        return {Failure(failure): int(errors) for failure, errors in rows}

    def _left_out(self, units: _Units) -> dict[str, int]:
        mismatched = self._connection.scalar(select(CELLS.c.mismatched).where(CELLS.c.id == self._cell))
        beyond = np.maximum(units.requests - self._design.requests_per_unit, 0).sum()
        found = {MISMATCHED: int(mismatched or 0), BEYOND_CAP: int(beyond)}
        return {why: count for why, count in found.items() if count}

    def _started_us(self, exposed_us: Array) -> int | None:
        if len(exposed_us):
            return int(exposed_us[0])
        minute = self._connection.scalar(select(func.min(BLOCKS.c.minute)).where(BLOCKS.c.cell_id == self._cell))
        return None if minute is None else int(minute) * _MINUTE_US


@dataclass(frozen=True, slots=True)
class _Units:
    """Every unit of an arm in a phase, each an array [units] in the units' order."""

    exposed_us: Array
    """NaN where only counts have come."""
    requests: Array
    matured: Array
    """Requests older than the outcome window."""
    errors: Array
    latency_ms: Array
    first_error: Array
    """NaN where it is not known."""
    labelled: Array
    """Requests with an outcome."""

    @classmethod
    def read(cls, connection: Connection, cell: int) -> _Units:
        labelled = (
            select(UNIT_SUMS.c.unit, func.max(UNIT_SUMS.c.n).label("n"))
            .where(UNIT_SUMS.c.cell_id == cell)
            .group_by(UNIT_SUMS.c.unit)
            .subquery()
        )
        names = ("exposed_us", "requests", "matured", "errors", "latency_us", "first_error")
        query = (
            select(*(UNITS.c[name] for name in names), labelled.c.n)
            .outerjoin_from(UNITS, labelled, labelled.c.unit == UNITS.c.unit)
            .where(UNITS.c.cell_id == cell)
            .order_by(UNITS.c.unit)
        )
        exposed_us, requests, matured, errors, latency_us, first_error, n = _columns(connection, query)
        has_requests = requests > 0
        return cls(
            exposed_us=exposed_us,
            requests=requests,
            matured=matured,
            errors=np.minimum(errors, requests),
            latency_ms=np.where(has_requests, latency_us, 0.0) / 1000,
            first_error=np.minimum(first_error, 1.0),
            labelled=np.nan_to_num(n),
        )


class _Edges:
    """Counts by bucket, and the thresholds that are worth keeping of each metric of kind Quantile."""

    def __init__(self, connection: Connection, cells: Mapping[int, Cell]) -> None:
        self._connection = connection
        self.cells = cells
        self._near: dict[tuple[int, int], tuple[int, ...]] = {}

    def tails(self, cell: int, metric: Metric, place: int) -> tuple[Tail, ...]:
        """Return the tails of an arm, at the thresholds of all arms of its phase together."""
        key = (self.cells[cell].phase, place)
        if key not in self._near:
            whole: Counter[int] = Counter()
            for number, one in self.cells.items():
                if one.phase == key[0]:
                    for cluster in self._clusters(number, metric, place):
                        whole.update(cluster.counts)
            self._near[key] = edges_near(whole, metric.quantile or 0.0)
        clusters = [one for one in self._clusters(cell, metric, place) if one.counts] or [_Cluster({})]
        blocks = None
        if metric.source is Source.SYSTEM:
            blocks = [one.server for one in clusters], [one.minute for one in clusters]
        found = tails_of([one.counts for one in clusters], edges=self._near[key], blocks=blocks)
        return tuple(Tail.of(one) for one in found)

    def _clusters(self, cell: int, metric: Metric, place: int) -> Iterator[_Cluster]:
        """Yield what must be summed as one: blocks of system metrics, units of the others."""
        if metric.source is Source.SYSTEM:
            columns = (BLOCKS.c.histogram, BLOCKS.c.server_id, BLOCKS.c.minute)
            query = select(*columns).where(BLOCKS.c.cell_id == cell)
            query = query.order_by(BLOCKS.c.minute, BLOCKS.c.server_id)
        else:
            query = select(UNIT_SUMS.c.histogram).where(UNIT_SUMS.c.cell_id == cell, UNIT_SUMS.c.metric == place)
            query = query.order_by(UNIT_SUMS.c.unit)
        for text, *block in self._connection.execute(query):
            yield _Cluster({int(edge): count for edge, count in json.loads(text or "{}").items()}, *block)


@dataclass(frozen=True, slots=True)
class _Cluster:
    """Requests by bucket, and of which block."""

    counts: _Counts
    server: int = 0
    minute: int = 0


def _first_seen(cells: Collection[int]) -> Subquery:
    """Rank each unit's exposures: the one in place 1 was the first in the whole experiment."""
    by_time = func.row_number().over(partition_by=UNITS.c.unit, order_by=(UNITS.c.exposed_us, UNITS.c.cell_id))
    where = (UNITS.c.cell_id.in_(sorted(cells)), UNITS.c.exposed_us.is_not(None))
    columns = (UNITS.c.cell_id, UNITS.c.unit, UNITS.c.covariate, by_time.label("place"))
    return select(*columns).where(*where).subquery()


def _first_exposures(cells: Collection[int]) -> Select[Any]:
    """Count the units of each cell that were exposed nowhere before."""
    ranked = _first_seen(cells)
    return select(ranked.c.cell_id, func.count()).where(ranked.c.place == 1).group_by(ranked.c.cell_id)


def _pending(experiment_id: int) -> Select[Any]:
    """Count the requests of each cell with outcomes that wait."""
    columns = (PENDING.c.cell_id, PENDING.c.time_us, PENDING.c.unit, PENDING.c.nonce)
    waiting = select(*columns).where(PENDING.c.experiment_id == experiment_id).distinct().subquery()
    return select(waiting.c.cell_id, func.count()).group_by(waiting.c.cell_id)


def _counted(connection: Connection, query: Select[Any]) -> Mapping[int, int]:
    return {row[0]: row[1] for row in connection.execute(query)}


def _columns(connection: Connection, query: Select[Any]) -> list[Array]:
    """Return the columns of a query as arrays, null as NaN."""
    rows = connection.execute(query).all()
    columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(query.selected_columns)
    return [np.array(column, np.float64) for column in columns]


def _sums(n: Array, x: Array) -> Sums:
    """Return the sums over those that have requests."""
    return Sums.of(n[n > 0], x[n > 0])


def _first_values(values: Array) -> FirstValues:
    known = values[~np.isnan(values)]
    return FirstValues(units=len(known), total=float(known.sum()))
