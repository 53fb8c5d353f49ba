"""What was decided of an experiment, and its end: from then on nothing of it changes but by erasure."""

from __future__ import annotations

from sqlalchemy import Connection, func, select, update

from fairlead_ledger.store import grounds
from fairlead_ledger.store.database import Database
from fairlead_ledger.store.schema import EXPERIMENTS, RECORDS


def latest(connection: Connection, experiment_id: int) -> str | None:
    """Return the last record of an experiment; None if nothing was decided."""
    query = select(RECORDS.c.record).where(RECORDS.c.experiment_id == experiment_id)
    return connection.scalar(query.order_by(RECORDS.c.number.desc()).limit(1))


def add(database: Database, connection: Connection, experiment_id: int, record: str, now_us: int) -> None:
    """Keep another record.

    Args:
        database: Where ``connection`` leads.
        connection: In a transaction that owns the experiment.
        experiment_id: Whose it is.
        record: JSON.
        now_us: By the experiments' clock.
    """
    count = select(func.count()).select_from(RECORDS).where(RECORDS.c.experiment_id == experiment_id)
    row = {"experiment_id": experiment_id, "number": connection.scalar(count), "record": record, "decided_us": now_us}
    connection.execute(database.insert(RECORDS), [row])


def end(connection: Connection, experiment_id: int, now_us: int) -> None:
    """End an experiment: what is told from now on is not kept, and what waits stays as evidence has counted it."""
    where = (EXPERIMENTS.c.id == experiment_id, EXPERIMENTS.c.ended_us.is_(None))
    connection.execute(update(EXPERIMENTS).where(*where).values(ended_us=now_us))
    grounds.forget(connection, experiment_id)
