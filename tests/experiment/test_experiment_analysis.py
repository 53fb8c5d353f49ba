"""The policy: which evidence makes which verdict, and why."""

from __future__ import annotations

from fairlead.experiment.analysis import analyse
from fairlead.experiment.design import Design
from fairlead.experiment.evidence import Evidence
from fairlead.experiment.report import Finding, Reason, Report, Role, Verdict
from support.experiment_worlds import (
    HOUR_US,
    START_US,
    Arm,
    design_of,
    evidence_of,
    two,
)


def look(design: Design, evidence: Evidence, *, phase: int = 1, hours: float = 10) -> Report:
    return analyse(design, evidence, phase=phase, now_us=START_US + int(hours * HOUR_US))


def said(report: Report) -> tuple[Verdict, Reason]:
    return report.verdict, report.reason


def test_better_and_no_guardrail_worse_passes() -> None:
    report = look(design_of(), evidence_of(two(treatment=Arm(brier=0.18, seed=2))))
    assert said(report) == (Verdict.PASS, Reason.SUPERIOR)
    assert report.winner == "boosted"
    (objective,) = report.of("boosted", Role.OBJECTIVE)
    assert objective.relative is not None
    assert objective.relative.low is not None
    assert objective.relative.low < -0.1 < (objective.relative.high or 0) < 0
    assert [one.finding for one in report.of("boosted", Role.GUARDRAIL)] == [Finding.NON_INFERIOR] * 2
