"""Experiments as they were declared, and their arms."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, select, update

from fairlead.experiment.design import Design, canonical
from fairlead_ledger.errors import Conflict
from fairlead_ledger.store.database import Database
from fairlead_ledger.store.schema import CELLS, EXPERIMENTS

_NEVER_US = -1


class State(StrEnum):
    """Where an experiment stands."""

    UNDECLARED = "Undeclared"
    """Servers tell of it, and nobody has said what it is."""
    RUNNING = "Running"
    ENDED = "Ended"
    """Nothing of it changes any more, but by erasure."""
    PURGED = "Purged"
    """Ended so long ago that only its design and its record are left."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment, as it is kept."""

    id: int
    salt: str
    design: Design | None
    digest: str | None
    """Of the design."""
    created_us: int
    ended_us: int | None
    folded_us: int
    """Outcomes of predictions up to then are in the sums; -1 before the first."""
    changes: int
    """Grows with whatever evidence is made from."""
    erased: int
    """Units that were erased."""
    purged_us: int | None

    @property
    def state(self) -> State:
        """Where it stands."""
        if self.purged_us is not None:
            return State.PURGED
        if self.ended_us is not None:
            return State.ENDED
        return State.UNDECLARED if self.design is None else State.RUNNING

    @property
    def window_us(self) -> int:
        """How long outcomes of a prediction are waited for."""
        return round(self.design.outcome_window_s * 1e6) if self.design else 0


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """An arm in a phase of an experiment."""

    experiment_id: int
    phase: int
    variant: str


def find(connection: Connection, salts: Collection[str]) -> Mapping[str, Experiment]:
    """Return those of some experiments that are known, by salt."""
    rows = connection.execute(select(EXPERIMENTS).where(EXPERIMENTS.c.salt.in_(salts)))
    return {row.salt: _experiment(row) for row in rows}


def every(connection: Connection) -> Iterator[Experiment]:
    """Yield all experiments, the latest first."""
    rows = connection.execute(select(EXPERIMENTS).order_by(EXPERIMENTS.c.created_us.desc(), EXPERIMENTS.c.salt))
    return map(_experiment, rows)


def running(connection: Connection) -> list[Experiment]:
    """Return the experiments that are declared and have not ended."""
    where = (EXPERIMENTS.c.design.is_not(None), EXPERIMENTS.c.ended_us.is_(None))
    return list(map(_experiment, connection.execute(select(EXPERIMENTS).where(*where).order_by(EXPERIMENTS.c.id))))


def mention(database: Database, connection: Connection, salts: Iterable[str], now_us: int) -> None:
    """Make room for experiments that something is told of before anybody has declared them."""
    rows = [_row(salt, now_us) for salt in sorted(salts)]
    if rows:
        connection.execute(database.insert(EXPERIMENTS).on_conflict_do_nothing(), rows)


def declare(database: Database, connection: Connection, design: Design, now_us: int) -> bool:
    """Keep the design of an experiment; return whether it was new.

    Raises:
        Conflict: Another design is kept; the message names the first field that differs.
    """
    mention(database, connection, [design.salt], now_us)
    where = EXPERIMENTS.c.salt == design.salt
    text = canonical(design).decode()
    declared = update(EXPERIMENTS).where(where, EXPERIMENTS.c.design.is_(None))
    if connection.execute(declared.values(design=text, digest=design.digest)).rowcount:
        return True
    kept = find(connection, [design.salt])[design.salt].design
    field = first_difference(kept, design) if kept else None
    if field is not None:
        raise Conflict(f"{design.salt} is declared with another {field}; give the experiment a new id")
    return False


def first_difference(one: Design, other: Design) -> str | None:
    """Return the first field in which two designs differ, ``objective.metric.kind``; None if there is none."""
    return next(_differences(one.model_dump(mode="json"), other.model_dump(mode="json"), ""), None)


def cells_of(connection: Connection, experiment_id: int) -> Mapping[int, Cell]:
    """Return the arms of an experiment in the phases that were seen, by their number."""
    rows = connection.execute(select(CELLS).where(CELLS.c.experiment_id == experiment_id))
    return {row.id: Cell(row.experiment_id, row.phase, row.variant) for row in rows}


def number_cells(database: Database, connection: Connection, cells: Collection[Cell]) -> Mapping[Cell, int]:
    """Return the numbers of arms in phases; those that have none get one."""
    keys = ("experiment_id", "phase", "variant")
    rows = [dict(zip(keys, (cell.experiment_id, cell.phase, cell.variant), strict=True)) for cell in sorted(cells)]
    connection.execute(database.insert(CELLS).on_conflict_do_nothing(), rows)
    experiments = {cell.experiment_id for cell in cells}
    found = (cells_of(connection, one) for one in sorted(experiments))
    return {cell: number for numbers in found for number, cell in numbers.items()}


def _row(salt: str, now_us: int) -> dict[str, Any]:
    return {"salt": salt, "created_us": now_us, "touched_us": now_us, "folded_us": _NEVER_US}


def _experiment(row: Row[Any]) -> Experiment:
    return Experiment(
        id=row.id,
        salt=row.salt,
        design=Design.model_validate_json(row.design) if row.design else None,
        digest=row.digest,
        created_us=row.created_us,
        ended_us=row.ended_us,
        folded_us=row.folded_us,
        changes=row.changes,
        erased=row.erased,
        purged_us=row.purged_us,
    )


def _differences(one: Any, other: Any, path: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in [*one, *(name for name in other if name not in one)]:
            yield from _differences(one.get(name), other.get(name), f"{path}.{name}" if path else name)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            yield from _differences(mine, theirs, f"{path}[{number}]")
    elif one != other:
        yield path
