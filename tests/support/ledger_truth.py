"""What a ledger must have kept, computed from what was told in the plainest way, and what it has kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from fairlead_ledger.store.database import Database
from fairlead_ledger.store.schema import CELLS, UNIT_SUMS
from support.ledgers import arm_of, digest, token

Key = tuple[int, str, str]
"""Phase, variant, and what stands for the unit."""
Kept = Mapping[Key, tuple[int, float]]
"""Requests and their total."""


@dataclass(frozen=True, slots=True)
class Told:
    """A prediction and its actual."""

    unit: str
    time_us: int
    number: int
    output: float
    """Must be a float32, to be what the token carries."""
    actual: int
    phase: int = 1

    @property
    def outcome(self) -> dict[str, Any]:
        """The outcome as an application tells it."""
        carried = token(self.unit, self.time_us, number=self.number, phase=self.phase, outputs=(self.output,))
        return {"prediction_id": carried, "actual": self.actual}


def truth(told: Iterable[Told], *, most: int) -> Kept:
    """Return the sums of Brier scores: of each unit's first predictions, in order of time.

    Args:
        told: In any order, each prediction once.
        most: Predictions that count of a unit.
    """
    found: dict[Key, tuple[int, float]] = {}
    for one in sorted(told, key=lambda one: (one.time_us, digest(one.unit), one.number.to_bytes(8, "little"))):
        key = (one.phase, arm_of(one.unit, one.phase), digest(one.unit))
        n, x = found.get(key, (0, 0.0))
        if n < most:
            found[key] = (n + 1, x + (one.output - one.actual) ** 2)
    return found


def kept(database: Database, metric: int = 0) -> Kept:
    """Return the sums of a metric that a ledger has."""
    columns = (CELLS.c.phase, CELLS.c.variant, UNIT_SUMS.c.unit, UNIT_SUMS.c.n, UNIT_SUMS.c.x)
    query = select(*columns).join_from(CELLS, UNIT_SUMS, CELLS.c.id == UNIT_SUMS.c.cell_id)
    with database.reading() as connection:
        rows = connection.execute(query.where(UNIT_SUMS.c.metric == metric)).all()
    return {(row.phase, row.variant, row.unit.hex()): (row.n, row.x) for row in rows}
