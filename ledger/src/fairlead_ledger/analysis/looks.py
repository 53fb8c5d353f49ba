"""What analyses said over time: one look a minute at most, a bounded number of them for each phase.

An interval holds at every look at once, so that its course may be shown without any price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, delete, func, select

from fairlead.experiment.report import Point, Report
from fairlead.feedback.messages import MetricName, TimeUs, VariantName
from fairlead_ledger.store.database import Database
from fairlead_ledger.store.schema import LOOKS

APART_US = 60_000_000
MOST_LOOKS = 480
"""Of a phase; at so many every second one is forgotten, so that a long experiment has a coarser course."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class MetricLook(_Frozen):
    """What was said of one metric of one treatment."""

    metric: MetricName
    treatment: VariantName
    point: Point


class Look(_Frozen):
    """What was said of a phase at one moment."""

    at_us: TimeUs
    heard_us: TimeUs | None = None
    """Minute of the last request that servers had told of then."""
    metrics: tuple[MetricLook, ...] = ()

    @classmethod
    def of(cls, report: Report, heard_us: int | None) -> Look:
        """Return what is kept of a report."""
        metrics = tuple(
            MetricLook(metric=one.metric, treatment=one.treatment, point=one.point(report.at_us))
            for one in report.metrics
            if one.limit is not None
        )
        return cls(at_us=report.at_us, heard_us=heard_us, metrics=metrics)


def read(connection: Connection, experiment_id: int, phase: int) -> list[Look]:
    """Return the looks at a phase, in order of time."""
    where = (LOOKS.c.experiment_id == experiment_id, LOOKS.c.phase == phase)
    rows = connection.scalars(select(LOOKS.c.look).where(*where).order_by(LOOKS.c.at_us))
    return [Look.model_validate_json(row) for row in rows]


def read_all(connection: Connection, experiment_id: int) -> list[Look]:
    """Return the looks at all phases, in order of time."""
    rows = connection.scalars(select(LOOKS.c.look).where(LOOKS.c.experiment_id == experiment_id))
    return sorted((Look.model_validate_json(row) for row in rows), key=lambda look: look.at_us)


def is_due(looks: Sequence[Look], at_us: int) -> bool:
    """Say whether a look at that moment is to be kept."""
    return not looks or at_us - looks[-1].at_us >= APART_US


def keep(database: Database, connection: Connection, experiment_id: int, phase: int, look: Look) -> None:
    """Keep a look; one of the same moment that is there stays."""
    insert = database.insert(LOOKS).on_conflict_do_nothing()
    row = {"experiment_id": experiment_id, "phase": phase, "at_us": look.at_us, "look": look.model_dump_json()}
    connection.execute(insert, [row])
    where = (LOOKS.c.experiment_id == experiment_id, LOOKS.c.phase == phase)
    if (connection.scalar(select(func.count()).select_from(LOOKS).where(*where)) or 0) <= MOST_LOOKS:
        return
    times = connection.scalars(select(LOOKS.c.at_us).where(*where).order_by(LOOKS.c.at_us)).all()
    connection.execute(delete(LOOKS).where(*where, LOOKS.c.at_us.in_(times[1:-1:2])))


def by_metric(phase: int, looks: Sequence[Look]) -> Mapping[tuple[int, str, str], Sequence[Point]]:
    """Return the course of each metric of each treatment."""
    found: dict[tuple[int, str, str], list[Point]] = {}
    for look in looks:
        for one in look.metrics:
            found.setdefault((phase, one.metric, one.treatment), []).append(one.point)
    return found
