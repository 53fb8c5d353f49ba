"""What is removed: a unit on its own wish, and all units of experiments that ended long ago."""

from __future__ import annotations

from sqlalchemy import Connection, and_, delete, or_, select, update

from fairlead_ledger.store import grounds
from fairlead_ledger.store.database import Database
from fairlead_ledger.store.schema import (
    BLOCKS,
    CELLS,
    EXPERIMENTS,
    FAILURES,
    PENDING,
    REVISIONS,
    RIPENING,
    UNIT_SUMS,
    UNITS,
)

_OF_UNITS = (UNITS, FAILURES, RIPENING, UNIT_SUMS)


def erase(database: Database, connection: Connection, experiment_id: int, unit: bytes) -> bool:
    """Remove everything that is kept of a unit in an experiment; return whether there was anything.

    Args:
        database: Where ``connection`` leads.
        connection: In a transaction that writes.
        experiment_id: Of which experiment.
        unit: What stands for it.
    """
    database.own(connection, experiment_id)
    cells = select(CELLS.c.id).where(CELLS.c.experiment_id == experiment_id)
    waiting = delete(PENDING).where(PENDING.c.experiment_id == experiment_id, PENDING.c.unit == unit)
    removed = connection.execute(waiting).rowcount
    for table in _OF_UNITS:
        of_unit = delete(table).where(table.c.cell_id.in_(cells), table.c.unit == unit)
        removed += connection.execute(of_unit).rowcount
    if removed:
        more = {"erased": EXPERIMENTS.c.erased + 1, "changes": EXPERIMENTS.c.changes + 1}
        connection.execute(update(EXPERIMENTS).where(EXPERIMENTS.c.id == experiment_id).values(more))
    return removed > 0


def outdated(connection: Connection, before_us: int) -> list[int]:
    """Return the experiments that ended, or were last told of, before a moment, and still have units."""
    is_old = or_(
        EXPERIMENTS.c.ended_us < before_us,
        and_(EXPERIMENTS.c.ended_us.is_(None), EXPERIMENTS.c.touched_us < before_us),
    )
    where = (EXPERIMENTS.c.purged_us.is_(None), is_old)
    return list(connection.scalars(select(EXPERIMENTS.c.id).where(*where).order_by(EXPERIMENTS.c.id)))


def purge(database: Database, experiment_id: int, now_us: int) -> None:
    """Remove all but design, records and looks of an experiment, a transaction for each table of each arm."""
    with database.writing() as connection:
        database.own(connection, experiment_id)
        ends = EXPERIMENTS.c.id == experiment_id
        connection.execute(update(EXPERIMENTS).where(ends, EXPERIMENTS.c.ended_us.is_(None)).values(ended_us=now_us))
        connection.execute(delete(PENDING).where(PENDING.c.experiment_id == experiment_id))
        grounds.forget(connection, experiment_id)
        cells = list(connection.scalars(select(CELLS.c.id).where(CELLS.c.experiment_id == experiment_id)))
    for cell in cells:
        for table in (*_OF_UNITS, BLOCKS, REVISIONS):
            with database.writing() as connection:
                connection.execute(delete(table).where(table.c.cell_id == cell))
    with database.writing() as connection:
        done = {"purged_us": now_us, "changes": EXPERIMENTS.c.changes + 1}
        connection.execute(update(EXPERIMENTS).where(EXPERIMENTS.c.id == experiment_id).values(done))
