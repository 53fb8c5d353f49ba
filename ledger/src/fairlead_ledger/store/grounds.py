"""Looks that a decision may rest on, with what they saw.

Whoever decides does so a moment after a look, and by then more has been seen. The record of the decision is to hold
what was decided on, so that is kept: the last such look of a phase for each reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from fairlead.experiment.evidence import Evidence
from fairlead.experiment.report import Reason, Report, Verdict
from fairlead_ledger.store.database import Database
from fairlead_ledger.store.schema import EXPERIMENTS, GROUNDS


@dataclass(frozen=True, slots=True)
class Grounds:
    """One look."""

    evidence: Evidence
    report: Report


def may_decide(report: Report) -> bool:
    """Say whether a decision may rest on a report."""
    return report.verdict in {Verdict.PASS, Verdict.FAIL} or report.reason is Reason.HORIZON_REACHED


def keep(database: Database, connection: Connection, experiment_id: int, found: Grounds) -> None:
    """Keep a look in place of an earlier one of the same phase and reason; nothing of an experiment that has ended."""
    ended = select(EXPERIMENTS.c.ended_us).where(EXPERIMENTS.c.id == experiment_id)
    if connection.scalar(ended) is not None:
        return
    report = found.report
    told = {
        "at_us": report.at_us,
        "evidence": found.evidence.model_dump_json(),
        "report": report.model_dump_json(),
    }
    key = {"experiment_id": experiment_id, "phase": report.phase, "reason": report.reason.value}
    insert = database.insert(GROUNDS)
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=list(key), set_=told, where=GROUNDS.c.at_us < insert.excluded.at_us
        ),
        [key | told],
    )


def read(connection: Connection, experiment_id: int, phase: int, reason: str) -> Grounds | None:
    """Return the last look at a phase that gave a reason; None if none did."""
    where = (GROUNDS.c.experiment_id == experiment_id, GROUNDS.c.phase == phase, GROUNDS.c.reason == reason)
    row = connection.execute(select(GROUNDS.c.evidence, GROUNDS.c.report).where(*where)).one_or_none()
    if row is None:
        return None
    return Grounds(Evidence.model_validate_json(row.evidence), Report.model_validate_json(row.report))


def forget(connection: Connection, experiment_id: int) -> None:
    """Forget those of an experiment."""
    connection.execute(delete(GROUNDS).where(GROUNDS.c.experiment_id == experiment_id))
