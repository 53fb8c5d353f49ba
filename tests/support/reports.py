"""Designs and reports as a test needs them: the flights' experiment, ten days into its last step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fairlead.clock import to_us
from fairlead.experiment.design import (
    Better,
    Design,
    Effect,
    Guardrail,
    Kind,
    Meaning,
    Metric,
    Objective,
    Phase,
    Scale,
    Source,
)
from fairlead.experiment.report import (
    ArmReport,
    Check,
    Finding,
    Gate,
    Interval,
    Method,
    MetricReport,
    Plan,
    Point,
    Reason,
    Report,
    Role,
    Verdict,
)
from fairlead.feedback.messages import Failure

SALT = "flights/arrival-delay/e1"
START_US = to_us(datetime(2013, 11, 1, 6, tzinfo=UTC))
DAY_US = 86_400_000_000
BRIER = Metric(name="brier", kind=Kind.MEAN, better=Better.LOWER, source=Source.ACTUAL)
LATENCY = Metric(name="latency_ms", kind=Kind.MEAN, better=Better.LOWER, source=Source.SYSTEM)
ERROR = Metric(name="error", kind=Kind.PROPORTION, better=Better.LOWER, source=Source.SYSTEM)
SLOWEST = Metric(name="wait_s", kind=Kind.QUANTILE, better=Better.LOWER, source=Source.OUTCOME, quantile=0.99)

WINS = Interval(estimate=-0.061, low=-0.098, high=-0.023)
"""Of the objective, where a treatment is better."""


def flights_design(**changed: Any) -> Design:
    """Return the flights' experiment: 10 % and then 50 % of the planes."""
    usual: dict[str, Any] = {
        "salt": SALT,
        "control": "logistic",
        "treatments": ("boosted",),
        "phases": (Phase(number=0, weights_bp={"boosted": 1000}), Phase(number=1, weights_bp={"boosted": 5000})),
        "objective": Objective(metric=BRIER, minimum_effect=Effect(size=0.05, scale=Scale.RELATIVE)),
        "guardrails": (
            Guardrail(metric=LATENCY, margin=Effect(size=0.1, scale=Scale.RELATIVE)),
            Guardrail(metric=ERROR, margin=Effect(size=0.001, scale=Scale.ABSOLUTE)),
        ),
        "outcome_window_s": 86_400.0,
        "maximum_duration_s": 30 * 86_400.0,
        "covariate": "tail_performance__mean_delay_7d",
        "meaning": Meaning.PROBABILITY,
        "digests": {"logistic": "sha256:" + "a" * 64, "boosted": "sha256:" + "b" * 64},
    }
    return Design(**(usual | changed))


@dataclass(frozen=True)
class Findings:
    """What a report says of one metric."""

    finding: Finding = Finding.OPEN
    relative: Interval | None = None
    message: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)


OBJECTIVE = Findings(
    Finding.SUPERIOR,
    WINS,
    "With boosted brier is 6.1 % lower than with logistic (2.3 % to 9.8 % lower).",
    {"p_value": 0.0021, "covariate": "tail_performance__mean_delay_7d", "variance_ratio": 0.83, "planned_units": 2960},
)


def flights_report(
    verdict: Verdict = Verdict.PASS,
    reason: Reason = Reason.SUPERIOR,
    *,
    design: Design | None = None,
    phase: int = 1,
    metrics: Mapping[str, Findings] | None = None,
    **changed: Any,
) -> Report:
    """Return a report on the flights' experiment."""
    design = design or flights_design()
    is_final = phase == design.phases[-1].number
    told: dict[str, Findings] = {
        "brier": OBJECTIVE,
        "latency_ms": Findings(Finding.NON_INFERIOR, Interval(estimate=0.012, low=None, high=0.061)),
        "error": Findings(Finding.NON_INFERIOR, Interval(estimate=-0.02, low=None, high=0.3)),
        "activity": Findings(Finding.OPEN, Interval(estimate=0.004, low=-0.05, high=0.06)),
        **(metrics or {}),
    }
    usual: dict[str, Any] = {
        "salt": design.salt,
        "design_digest": design.digest,
        "phase": phase,
        "is_final": is_final,
        "at_us": START_US + (3 + 10 * phase) * DAY_US,
        "verdict": verdict,
        "reason": reason,
        "message": "",
        "winner": design.treatments[0] if reason is Reason.SUPERIOR else None,
        "arms": tuple(_arm(design, arm, phase) for arm in design.arms),
        "metrics": tuple(_metrics(design, told, with_objective=is_final)),
        "sample_ratio": Check(log_e=-1.3, log_alarm=4.6, is_broken=False, p_value=1.0),
        "label_coverage": Check(log_e=-0.9, log_alarm=4.6, is_broken=False, p_value=1.0),
        "estimand": "Average brier over a unit's first 50 requests in this step, with the outcomes that came within "
        "24 hours; every request counts the same.",
        "plan": Plan(
            planned_units=2960, seen_units=2711, elapsed_s=10.4 * 86400, planned_s=13.1 * 86400, maximum_s=30 * 86400.0
        ),
    }
    return Report(**(usual | changed))


def looks_at(interval: Interval, count: int = 60, *, start_us: int = START_US, days: float = 10.0) -> list[Point]:
    """Return an interval as it narrowed until now: at first nothing could be said."""
    points = []
    for number in range(count):
        share = (number + 1) / count
        at_us = start_us + int(share * days * DAY_US)
        if share < 0.1:
            points.append(Point(at_us=at_us, effect=None, low=None, high=None))
            continue
        wide = 1 / math.sqrt(share)
        effect = interval.estimate * (1 + 0.5 * (wide - 1) * math.cos(9 * share))
        ends = [
            None if end is None else effect + (end - interval.estimate) * wide for end in (interval.low, interval.high)
        ]
        points.append(Point(at_us=at_us, effect=effect, low=ends[0], high=ends[1]))
    return points


def _arm(design: Design, arm: str, phase: int) -> ArmReport:
    target = design.shares(phase)[arm]
    units = round(2711 * target) + (7 if arm == design.control else -7)
    requests = round(units * 15.4)
    matured, labelled = round(units * 0.97), round(units * 0.96)
    return ArmReport(
        variant=arm,
        units=units,
        first_exposures=units,
        share=units / 2711,
        target=target,
        requests=requests,
        requests_per_unit=15.4,
        matured_units=matured,
        labelled_units=labelled,
        label_coverage=labelled / matured,
        matured_requests=round(requests * 0.9),
        labelled_requests=round(requests * 0.88),
        pending_requests=round(requests * 0.06),
        missing_requests=round(requests * 0.02),
        errors=4,
        failures={Failure.MODEL: 3} if arm == design.control else {Failure.NO_ANSWER: 4},
        left_out={"OverCap": round(units * 0.8), "OutOfWindow": 3},
    )


def _metrics(design: Design, told: Mapping[str, Findings], *, with_objective: bool) -> list[MetricReport]:
    made = []
    for treatment in design.treatments:
        if design.objective and with_objective:
            limit = design.objective.minimum_effect
            made.append(_metric(design.objective.metric, Role.OBJECTIVE, treatment, limit, told))
        made += [_metric(one.metric, Role.GUARDRAIL, treatment, one.margin, told) for one in design.guardrails]
        activity = Metric(name="activity", kind=Kind.MEAN, better=Better.HIGHER, source=Source.SYSTEM)
        made.append(_metric(activity, Role.ACTIVITY, treatment, None, told))
    return made


_LEVELS = {"brier": 0.1412, "latency_ms": 4.31, "error": 0.0021}


def _metric(
    metric: Metric, role: Role, treatment: str, limit: Effect | None, told: Mapping[str, Findings]
) -> MetricReport:
    known = told.get(metric.name, Findings())
    level = _LEVELS.get(metric.name, 15.4)
    relative = known.relative
    usual: dict[str, Any] = {
        "metric": metric.name,
        "role": role,
        "treatment": treatment,
        "kind": metric.kind,
        "better": metric.better,
        "quantile": metric.quantile,
        "limit": limit,
        "finding": known.finding,
        "message": known.message,
        "control_value": level,
        "treatment_value": level * (1 + (relative.estimate if relative else 0)),
        "relative": relative,
        "absolute": relative
        and Interval(
            estimate=relative.estimate * level,
            low=relative.low and relative.low * level,
            high=relative.high and relative.high * level,
        ),
        "scale": limit.scale if limit else Scale.RELATIVE,
        "gate": Gate(
            needed=25,
            control=311.4,
            treatment=287.9,
            control_units=1362,
            treatment_units=1349,
            is_open=relative is not None,
        ),
        "method": Method.UNITS,
        "alpha": 0.05,
    }
    return MetricReport(**(usual | dict(known.more)))
