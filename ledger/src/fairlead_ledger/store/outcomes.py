"""Outcomes that wait until their predictions are judged, and the counts of what became of all that were told."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from fairlead.feedback.messages import Fate
from fairlead_ledger.intake.judge import Exposed, Joined
from fairlead_ledger.intake.rules import Refused
from fairlead_ledger.store.database import Database
from fairlead_ledger.store.directory import Directory
from fairlead_ledger.store.experiments import Cell
from fairlead_ledger.store.schema import CELLS, EXPERIMENTS, FATES, PENDING, UNITS

AHEAD_US = 300_000_000
"""How far the clock of whoever predicted may be ahead of the ledger's."""

Settled = Fate | Refused
"""What became of an outcome."""


class _Window(NamedTuple):
    folded_us: int
    is_ended: bool


_Key = tuple[Any, ...]
_IDENTITY = ("experiment_id", "time_us", "unit", "nonce", "row", "metric")
_CHUNK = 500


def take(database: Database, directory: Directory, outcomes: Sequence[Joined | Refused], now_us: int) -> list[Settled]:
    """Keep outcomes, in one transaction; return what became of each."""
    joined = [one for one in outcomes if isinstance(one, Joined)]
    numbers = directory.cells({_cell(one) for one in joined})
    with database.writing() as connection:
        windows = _windows(database, connection, {one.experiment_id for one in joined})
        settled: list[Settled] = []
        taken: dict[int, Joined] = {}
        for place, one in enumerate(outcomes):
            refused = one if isinstance(one, Refused) else _too_late(one, windows[one.experiment_id], now_us)
            settled.append(refused or Fate.DUPLICATE)
            if isinstance(one, Joined) and refused is None:
                taken[place] = one
        for place in _insert(database, connection, taken, numbers):
            settled[place] = Fate.ACCEPTED
        _count(database, connection, outcomes, settled)
        return settled


def exposures(
    connection: Connection, units: Mapping[int, Collection[bytes]]
) -> Mapping[tuple[int, bytes], Sequence[Exposed]]:
    """Return where units were exposed, by experiment and unit.

    Args:
        connection: To read with.
        units: What stands for them, by experiment.
    """
    found: dict[tuple[int, bytes], list[Exposed]] = defaultdict(list)
    for id_, of_experiment in units.items():
        asked = sorted(set(of_experiment))
        for start in range(0, len(asked), _CHUNK):
            query = (
                select(UNITS.c.unit, UNITS.c.exposed_us, CELLS.c.phase, CELLS.c.variant)
                .join_from(CELLS, UNITS, CELLS.c.id == UNITS.c.cell_id)
                .where(CELLS.c.experiment_id == id_, UNITS.c.exposed_us.is_not(None))
                .where(UNITS.c.unit.in_(asked[start : start + _CHUNK]))
            )
            for row in connection.execute(query):
                found[id_, row.unit].append(Exposed(row.phase, row.variant, row.exposed_us))
    return found


def _cell(one: Joined) -> Cell:
    return Cell(one.experiment_id, one.phase, one.variant)


def _windows(database: Database, connection: Connection, ids: Collection[int]) -> Mapping[int, _Window]:
    """Return which outcomes experiments still take; that stays so until the transaction ends."""
    for id_ in sorted(ids):
        database.share(connection, id_)
    columns = (EXPERIMENTS.c.id, EXPERIMENTS.c.folded_us, EXPERIMENTS.c.ended_us)
    rows = connection.execute(select(*columns).where(EXPERIMENTS.c.id.in_(ids)))
    return {row.id: _Window(row.folded_us, row.ended_us is not None) for row in rows}


def _too_late(one: Joined, window: _Window, now_us: int) -> Refused | None:
    """Return why an outcome is not taken any more, or not yet; None if it is."""
    if window.is_ended:
        message = "the experiment has ended"
    elif one.time_us <= window.folded_us or one.time_us + one.window_us < now_us:
        message = f"the prediction is older than the outcome window of {one.window_us / 1e6:g} s"
    elif one.time_us > now_us + AHEAD_US:
        message = "the prediction is in the future"
    else:
        return None
    return Refused(Fate.OUT_OF_WINDOW, message, one.experiment_id)


def _insert(
    database: Database, connection: Connection, taken: Mapping[int, Joined], numbers: Mapping[Cell, int]
) -> set[int]:
    """Insert outcomes; return the places of those that were not there yet."""
    places: dict[_Key, int] = {}
    rows = {}
    for place, one in taken.items():
        for metric, value in one.values:
            key = (one.experiment_id, one.time_us, one.unit, one.nonce, one.row, metric)
            if places.setdefault(key, place) == place:
                rows[key] = _row(key, numbers[_cell(one)], one, value)
    if not rows:
        return set()
    columns = [PENDING.c[name] for name in _IDENTITY]
    insert = database.insert(PENDING).on_conflict_do_nothing().returning(*columns)
    # In order, so that no two writers wait in a circle.
    inserted = connection.execute(insert, [rows[key] for key in sorted(rows)])
    return {places[tuple(row)] for row in inserted}


def _row(key: _Key, cell: int, one: Joined, value: float) -> dict[str, Any]:
    return {**dict(zip(_IDENTITY, key, strict=True)), "cell_id": cell, "by_unit": one.by_unit, "value": value}


def _count(
    database: Database, connection: Connection, outcomes: Sequence[Joined | Refused], settled: Sequence[Settled]
) -> None:
    counts = Counter(
        (one.experiment_id, (fate.fate if isinstance(fate, Refused) else fate).value)
        for one, fate in zip(outcomes, settled, strict=True)
    )
    if not counts:
        return
    insert = database.insert(FATES)
    added = {"count": FATES.c.count + insert.excluded.count}
    upsert = insert.on_conflict_do_update(index_elements=["experiment_id", "fate"], set_=added)
    rows = [{"experiment_id": id_, "fate": fate, "count": count} for (id_, fate), count in sorted(counts.items())]
    connection.execute(upsert, rows)
