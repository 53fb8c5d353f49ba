"""What was said of each experiment last, so that a list of them needs no analysis: a look's report, or the record's."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, Row, and_, or_, select

from fairlead.experiment.decision import Action
from fairlead.experiment.report import Reason, Report, Verdict
from fairlead_ledger.store.database import Database
from fairlead_ledger.store.schema import VERDICTS


class Last(BaseModel):
    """What was said of an experiment last."""

    model_config = ConfigDict(frozen=True)

    phase: int
    verdict: Verdict
    reason: Reason
    at_us: int
    action: Action | None
    """What was decided on it; None before."""


def keep(
    database: Database, connection: Connection, experiment_id: int, report: Report, action: Action | None = None
) -> None:
    """Keep what a report says, in place of what was said before.

    What was decided stays, but for a hold; and of two phases the later one is told, unless the earlier was decided on.
    """
    told = {
        "phase": report.phase,
        "verdict": report.verdict.value,
        "reason": report.reason.value,
        "at_us": report.at_us,
        "action": action.value if action else None,
    }
    insert = database.insert(VERDICTS)
    is_open = or_(VERDICTS.c.action.is_(None), VERDICTS.c.action == Action.HOLD.value)
    where = None if action else and_(is_open, VERDICTS.c.phase <= insert.excluded.phase)
    upsert = insert.on_conflict_do_update(index_elements=["experiment_id"], set_=told, where=where)
    connection.execute(upsert, [{"experiment_id": experiment_id, **told}])


def every(connection: Connection) -> Mapping[int, Last]:
    """Return what was said last, by the number of the experiment."""
    return {row.experiment_id: _last(row) for row in connection.execute(select(VERDICTS))}


def of(connection: Connection, experiment_id: int) -> Last | None:
    """Return what was said of an experiment last; None if nobody has looked yet."""
    row = connection.execute(select(VERDICTS).where(VERDICTS.c.experiment_id == experiment_id)).one_or_none()
    return None if row is None else _last(row)


def _last(row: Row[object]) -> Last:
    return Last(phase=row.phase, verdict=row.verdict, reason=row.reason, at_us=row.at_us, action=row.action)
