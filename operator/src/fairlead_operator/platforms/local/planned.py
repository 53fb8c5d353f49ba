"""What an experiment takes, in a sentence, as soon as that is known: units, days, and whether its time is enough."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.experiment.report import Report

_DAY_S = 86_400.0
_EARLIEST = 0.1
"""Part of the time after which a forecast is worth telling; before, units have hardly come back yet."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What people are told of a plan; once for each ``topic``, however its figures move."""

    topic: tuple[str, int, bool, bool]
    """Experiment, step, whether days are known, whether the time allows for them."""
    sentence: str


def planned_of(report: Report) -> Planned | None:
    """Return what the last step takes from what was seen so far; None while too little was, or before that step."""
    plan = report.plan
    known = [time_s for time_s in (plan.planned_s, plan.maximum_s) if time_s is not None]
    if plan.planned_units is None or not report.is_final or plan.elapsed_s < _EARLIEST * min(known, default=0.0):
        return None
    sentence = f"step {report.phase + 1} needs about {plan.planned_units:,} units, {plan.seen_units:,} were seen"
    if plan.planned_s is None:
        return Planned((report.salt, report.phase, False, True), sentence)
    sentence += f": {_days(plan.planned_s)} in all, fewer if units come back often"
    fits = plan.maximum_s is None or plan.planned_s <= plan.maximum_s
    if not fits and plan.maximum_s is not None:
        sentence += (
            f"; WARNING: maximumDuration is {_days(plan.maximum_s)}, so it will probably end undecided: "
            "another experiment.id may have a longer one, or a larger minimumEffect"
        )
    return Planned((report.salt, report.phase, True, fits), sentence)


def _days(seconds: float) -> str:
    days = seconds / _DAY_S
    return f"{days:,.1f} days" if days < 10 else f"{days:,.0f} days"  # noqa: PLR2004 -- a digit where it tells
