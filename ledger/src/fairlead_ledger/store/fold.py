"""The fold: outcomes whose prediction is old enough go into their unit's sums, once, in order of prediction time.

A prediction is old enough when no outcome of it is taken any more, so that a unit's first requests are known when they
are folded. Sums are added one value after the other in that order, so that they are the same to the last bit however
the work was cut into transactions, and whatever died in between.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, func, or_, select, update

from fairlead.experiment.design import Kind
from fairlead.experiment.tail import edge_of
from fairlead_ledger.store.database import Database
from fairlead_ledger.store.experiments import Experiment
from fairlead_ledger.store.schema import CELLS, EXPERIMENTS, PENDING, RIPENING, UNIT_SUMS, UNITS

_ORDER = (PENDING.c.time_us, PENDING.c.unit, PENDING.c.nonce, PENDING.c.row, PENDING.c.metric)
_MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be folded."""

    outcomes: int
    """All that wait, most of them for their request to be old enough."""
    lag_s: float
    """Since when the oldest of those that need not wait any longer could have been folded; 0 if there is none."""


class _Key(NamedTuple):
    cell_id: int
    metric: int
    unit: bytes


@dataclass(slots=True)
class _Sums:
    n: int = 0
    x: float = 0.0
    first: float = 0.0
    histogram: dict[str, int] = field(default_factory=dict)

    def add(self, value: float, *, is_quantile: bool) -> None:
        self.first = self.first if self.n else value
        self.n += 1
        self.x += value
        if is_quantile:
            edge = str(edge_of(value))
            self.histogram[edge] = self.histogram.get(edge, 0) + 1


def is_due(connection: Connection, experiment: Experiment, now_us: int) -> bool:
    """Return whether there is something to fold."""
    until_us = now_us - experiment.window_us - 1
    waiting = exists().where(PENDING.c.experiment_id == experiment.id, PENDING.c.time_us <= until_us)
    return bool(connection.scalar(select(or_(waiting, exists().where(_is_ripe(experiment.id, until_us))))))


def backlog(connection: Connection, experiments: Iterable[Experiment], now_us: int) -> Backlog:
    """Return what waits to be folded.

    Args:
        connection: In a transaction that sees one state.
        experiments: Those that are running.
        now_us: By the experiments' clock.
    """
    oldest = select(PENDING.c.experiment_id, func.min(PENDING.c.time_us)).group_by(PENDING.c.experiment_id)
    since_us: dict[int, int] = {row[0]: row[1] for row in connection.execute(oldest)}
    lags = [now_us - one.window_us - 1 - since_us.get(one.id, now_us) for one in experiments]
    count = connection.scalar(select(func.count()).select_from(PENDING))
    return Backlog(int(count or 0), max(0, *lags) / 1e6 if lags else 0.0)


def fold(database: Database, connection: Connection, experiment: Experiment, now_us: int, *, most: int) -> bool:
    """Fold what is old enough; return whether more of it is left.

    Args:
        database: Where ``connection`` leads.
        connection: In a transaction that writes.
        experiment: What is folded; only what never changes of it is used.
        now_us: By the experiments' clock.
        most: Outcomes at once, but for those of a single moment.
    """
    database.own(connection, experiment.id)
    where = EXPERIMENTS.c.id == experiment.id
    kept = connection.execute(select(EXPERIMENTS.c.folded_us, EXPERIMENTS.c.ended_us).where(where)).one()
    until_us = now_us - experiment.window_us - 1
    if kept.ended_us is not None or until_us <= kept.folded_us or experiment.design is None:
        return False
    rows = _oldest(connection, experiment.id, until_us, most + 1)
    is_last = len(rows) <= most
    rows = rows if is_last else _whole_moments(connection, experiment.id, rows)
    ripe = _ripen(connection, experiment.id, until_us) if is_last else 0
    if rows:
        _add(database, connection, experiment, rows)
        folded = and_(PENDING.c.experiment_id == experiment.id, PENDING.c.time_us <= rows[-1].time_us)
        connection.execute(delete(PENDING).where(folded))
    if rows or ripe:
        folded_us = rows[-1].time_us if rows else kept.folded_us
        changes = EXPERIMENTS.c.changes + 1
        connection.execute(update(EXPERIMENTS).where(where).values(folded_us=folded_us, changes=changes))
    return not is_last


def _oldest(connection: Connection, experiment_id: int, until_us: int, most: int) -> Sequence[Row[Any]]:
    where = and_(PENDING.c.experiment_id == experiment_id, PENDING.c.time_us <= until_us)
    return connection.execute(select(PENDING).where(where).order_by(*_ORDER).limit(most)).all()


def _whole_moments(connection: Connection, experiment_id: int, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
    """Return rows without those of the last moment, which may be incomplete; all of it if there is no other."""
    whole = [row for row in rows if row.time_us < rows[-1].time_us]
    if whole:
        return whole
    moment = rows[-1].time_us
    where = and_(PENDING.c.experiment_id == experiment_id, PENDING.c.time_us == moment)
    return connection.execute(select(PENDING).where(where).order_by(*_ORDER)).all()


def _add(database: Database, connection: Connection, experiment: Experiment, rows: Sequence[Row[Any]]) -> None:
    if experiment.design is None:
        return
    most = experiment.design.requests_per_unit
    metrics = enumerate(experiment.design.metrics.values())
    quantiles = {place for place, metric in metrics if metric.kind is Kind.QUANTILE}
    sums = _kept(connection, experiment.id, rows[-1].time_us)
    changed: set[_Key] = set()
    for key, value in _values(rows):
        unit_sums = sums.setdefault(key, _Sums())
        if unit_sums.n < most:
            unit_sums.add(value, is_quantile=key.metric in quantiles)
            changed.add(key)
    insert = database.insert(UNIT_SUMS)
    replaced = {name: insert.excluded[name] for name in ("n", "x", "first", "histogram")}
    upsert = insert.on_conflict_do_update(index_elements=["cell_id", "metric", "unit"], set_=replaced)
    if changed:
        connection.execute(upsert, [_row(key, sums[key]) for key in sorted(changed)])


def _values(rows: Sequence[Row[Any]]) -> Iterator[tuple[_Key, float]]:
    """Yield one value per request and metric, in order of time: the mean over the rows of it that were told."""
    for _, of_request in groupby(rows, key=lambda row: (row.time_us, row.unit, row.nonce)):
        told: dict[_Key, list[float]] = {}
        for row in of_request:
            told.setdefault(_Key(row.cell_id, row.metric, row.unit), []).append(row.value)
        for key, values in told.items():
            yield key, sum(values) / len(values)


def _kept(connection: Connection, experiment_id: int, until_us: int) -> dict[_Key, _Sums]:
    """Return the sums so far of every unit that has something to be folded."""
    folded = (
        select(PENDING.c.cell_id, PENDING.c.metric, PENDING.c.unit)
        .where(PENDING.c.experiment_id == experiment_id, PENDING.c.time_us <= until_us)
        .distinct()
        .subquery()
    )
    same = and_(*(UNIT_SUMS.c[name] == folded.c[name] for name in _Key._fields))
    rows = connection.execute(select(UNIT_SUMS).join(folded, same))
    return {_Key(row.cell_id, row.metric, row.unit): _sums(row) for row in rows}


def _sums(row: Row[Any]) -> _Sums:
    return _Sums(row.n, row.x, row.first, json.loads(row.histogram or "{}"))


def _row(key: _Key, sums: _Sums) -> dict[str, Any]:
    histogram = json.dumps(sums.histogram, sort_keys=True) if sums.histogram else None
    return {**key._asdict(), "n": sums.n, "x": sums.x, "first": sums.first, "histogram": histogram}


def _ripen(connection: Connection, experiment_id: int, until_us: int) -> int:
    """Count requests as older than the outcome window once they are; return how many units have such."""
    is_ripe = _is_ripe(experiment_id, until_us)
    grown = (
        select(RIPENING.c.cell_id, RIPENING.c.unit, func.sum(RIPENING.c.requests).label("requests"))
        .where(is_ripe)
        .group_by(RIPENING.c.cell_id, RIPENING.c.unit)
        .subquery()
    )
    same = and_(UNITS.c.cell_id == grown.c.cell_id, UNITS.c.unit == grown.c.unit)
    more = update(UNITS).where(same).values(matured=UNITS.c.matured + grown.c.requests)
    count = connection.execute(more).rowcount
    connection.execute(delete(RIPENING).where(is_ripe))
    return count


def _is_ripe(experiment_id: int, until_us: int) -> ColumnElement[bool]:
    cells = select(CELLS.c.id).where(CELLS.c.experiment_id == experiment_id)
    return and_(RIPENING.c.cell_id.in_(cells), (RIPENING.c.minute + 1) * _MINUTE_US <= until_us)
