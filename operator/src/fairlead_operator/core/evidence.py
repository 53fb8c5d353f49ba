"""From what the ledger has said to what the rollout may do: policy, and nothing else. Pure.

A guardrail that is breached in any step fails the run at once. A broken comparison, and a source that has fallen
silent, hold it: the step is not left, nothing is promoted, nothing is rolled back. Success, and an objective that is
missed, count in the last step alone. A canary has guardrails alone: its steps pass by their time, once every guardrail
could be looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fairlead.experiment.design import Design, Meaning, Source
from fairlead.experiment.report import Reason as Why
from fairlead.experiment.report import Report, Verdict
from fairlead_operator.api.conditions import ConditionType, Reason
from fairlead_operator.core.canary import compared
from fairlead_operator.core.desired import Desired
from fairlead_operator.core.observed import Problem
from fairlead_operator.core.record import Record, Recorded, Registered
from fairlead_operator.core.rollout import NO_DATA, Analysis


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why nothing, or nothing new, is known."""

    reason: Reason
    message: str
    """What is wrong, and what to do."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the ledger has said of the experiment in force, as far as is known."""

    registered: str | None = None
    """Digest of the design that the ledger has; None if that is not known."""
    reports: Mapping[int, Report] = field(default_factory=dict)
    """The last one of each phase that has begun."""
    trouble: Trouble | None = None
    """None while the ledger answers."""
    told: Mapping[str, Recorded | None] = field(default_factory=dict)
    """By the salt of an experiment whose decision the ledger was told: the record; None if it knows nothing of it."""
    page: str | None = None
    """Address of the experiment's page."""


NO_EVIDENCE = Evidence()
"""What is known where nothing is compared, or nobody was asked."""

_HOLDS = Analysis(Verdict.NO_DATA, Why.SOURCE_DOWN, holds=True)


def noted(desired: Desired, record: Record, evidence: Evidence) -> Record:
    """Return ``record`` with what the ledger is known to have: the design, and decisions."""
    desired = compared(desired, record)
    if desired.design is not None and evidence.registered == desired.design.digest:
        record = replace(record, registered=Registered(desired.salt, evidence.registered))
    left = tuple(one for one in record.untold if one.salt not in evidence.told)
    run = record.run
    if run is not None and run.decision is not None and run.decision.record is None and run.id in evidence.told:
        run = replace(run, decision=replace(run.decision, record=evidence.told[run.id]))
    return record if (run, left) == (record.run, record.untold) else replace(record, run=run, untold=left)


def analysis_of(desired: Desired, record: Record, evidence: Evidence) -> Analysis:
    """Return what the evidence says about the run in force.

    Args:
        desired: What is asked for.
        record: What is remembered.
        evidence: What the ledger has said.
    """
    desired = compared(desired, record)
    if desired.design is None or record.run is None or record.run.id != desired.salt:
        return NO_DATA
    step = record.run.step
    reports = [report for phase, report in sorted(evidence.reports.items()) if phase <= step]
    breached = next((report for report in reports if _is_breach(report)), None)
    if breached is not None:
        return Analysis(breached.verdict, breached.reason, phase=breached.phase)
    broken = next((report for report in reports if report.verdict is Verdict.INVALID), None)
    if broken is not None:
        return Analysis(Verdict.INVALID, broken.reason, phase=broken.phase, holds=True)
    current = evidence.reports.get(step)
    if evidence.trouble is not None or current is None:
        return _HOLDS
    if desired.canary is not None:
        return _of_canary(current)
    return _of(current, is_last=step == len(desired.strategy.steps) - 1)


def unfit(design: Design | None, meanings: Mapping[str, Meaning]) -> Problem | None:
    """Return which metric does not fit what models answer; None if all do, or that is not known yet.

    Args:
        design: How the experiment is judged.
        meanings: What the output that tokens carry means, by variant, as far as servers have told.
    """
    for arm in design.arms if design is not None else ():
        meaning = meanings.get(arm)
        if design is None or meaning is None or design.meaning in {None, meaning}:
            continue
        names = [name for name, metric in design.metrics.items() if metric.source is Source.ACTUAL]
        if meaning is Meaning.NUMBER or "absolute_error" in names:
            use = _PROPER[meaning]
            message = f"{arm} answers {_SPELLED[meaning]}, which {', '.join(names)} does not judge; use {use}"
            return Problem(ConditionType.EXPERIMENT_HEALTHY, Reason.METRIC_UNFIT, message, stops_growth=True)
    return None


def meaning_of(metadata: Mapping[str, Any]) -> Meaning | None:
    """Return what the output that tokens carry means, as V2 model metadata tells it; None if it does not.

    It is the first probability, without one the first value; see ``Contract.primary_output``.
    """
    outputs = metadata.get("outputs")
    told = [one.get("parameters") for one in outputs if isinstance(one, Mapping)] if isinstance(outputs, list) else []
    found = [one.get("meaning") for one in told if isinstance(one, Mapping)]
    return next((meaning for name, meaning in _MEANINGS.items() if name in found), None)


_MEANINGS = {"probability": Meaning.PROBABILITY, "value": Meaning.NUMBER}
"""By their names in a contract, the one that is taken first."""
_SPELLED = {Meaning.PROBABILITY: "a probability", Meaning.NUMBER: "a number that is no probability"}
_PROPER = {
    Meaning.PROBABILITY: "brier or log_loss (absolute_error is improper: it is least for a constant answer)",
    Meaning.NUMBER: "squared_error or absolute_error",
}


def _is_breach(report: Report) -> bool:
    return report.verdict is Verdict.FAIL and report.reason is Why.GUARDRAIL_BREACHED


def _of_canary(report: Report) -> Analysis:
    """Return what a sound report of a canary's step says: a guardrail that nobody could look at yet guards nothing."""
    holds = report.verdict is Verdict.NO_DATA or report.reason is Why.NOT_YET_MATURE
    return Analysis(report.verdict, report.reason, phase=report.phase, holds=holds)


def _of(report: Report, *, is_last: bool) -> Analysis:
    """Return what a sound report of the step in force says."""
    counts = is_last and report.is_final
    match report.verdict:
        case Verdict.PASS if counts:
            return Analysis(Verdict.PASS, report.reason, report.winner, report.phase)
        case Verdict.FAIL if counts:
            return Analysis(Verdict.FAIL, report.reason, phase=report.phase)
        case Verdict.INSUFFICIENT if counts:
            return Analysis(Verdict.INSUFFICIENT, report.reason, phase=report.phase)
        case Verdict.NO_DATA:
            holds = report.reason is Why.SOURCE_DOWN
            return Analysis(Verdict.NO_DATA, report.reason, phase=report.phase, holds=holds)
        case _:  # what is judged in the last step alone decides nothing before it
            return Analysis(Verdict.INSUFFICIENT, Why.NOT_YET_MATURE, phase=report.phase)
