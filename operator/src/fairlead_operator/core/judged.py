"""What a report says, as a status tells it. Pure."""

from __future__ import annotations

from typing import Any

from fairlead.experiment.report import Finding, MetricReport, Report, Role
from fairlead_operator.api.v1alpha1 import MetricStatus, SampleRatio

_DIGITS = 6
_VERDICTS = {
    Finding.SUPERIOR: "Pass",
    Finding.NON_INFERIOR: "Pass",
    Finding.HARMFUL: "Fail",
    Finding.BREACHED: "Fail",
    Finding.NOT_WORTHWHILE: "Fail",
    Finding.OPEN: "Insufficient",
    Finding.GATED: "Insufficient",
    Finding.DIFFERENT: "Insufficient",
    Finding.NO_DATA: "NoData",
}


def told_of(report: Report) -> dict[str, Any]:
    """Return the fields of ``ExperimentStatus`` that come from a report."""
    return {
        "verdict": report.verdict.value,
        "reason": report.reason.value,
        "units": {arm.variant: arm.units for arm in report.arms},
        "sample_ratio": SampleRatio(
            ok=not report.sample_ratio.is_broken, p=_tidy(min(max(report.sample_ratio.p_value, 0.0), 1.0))
        ),
        "metrics": tuple(_metric(one) for one in report.metrics if one.role is not Role.ACTIVITY),
    }


def _metric(one: MetricReport) -> MetricStatus:
    judged = one.judged
    return MetricStatus(
        name=one.metric,
        variant=one.treatment,
        role=one.role.value,
        control=_tidy(one.control_value),
        treatment=_tidy(one.treatment_value),
        scale=one.scale.value,
        effect=_tidy(judged.estimate) if judged else None,
        low=_tidy(judged.low) if judged else None,
        high=_tidy(judged.high) if judged else None,
        verdict=_VERDICTS[one.finding],
    )


def _tidy(number: float | None) -> float | None:
    """Return a number as people read it, so that a status does not change with every rounding error."""
    return None if number is None else float(f"{number:.{_DIGITS}g}")
