"""What is shown of one metric of one treatment, by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fairlead.experiment import bounds, gate, trials
from fairlead.experiment.covariate import adjusted, tie
from fairlead.experiment.covariate_balance import differs
from fairlead.experiment.design import Better, Effect, Guardrail, Kind, Metric, Objective, Scale, Source
from fairlead.experiment.estimate import ArmEstimate, Difference, absolute, estimate, larger, relative
from fairlead.experiment.evidence import ArmEvidence, Sums
from fairlead.experiment.metrics import is_bounded
from fairlead.experiment.planning import information_needed, size_of
from fairlead.experiment.quantile import QuantileEstimate, estimate_quantile
from fairlead.experiment.report import Finding, Gate, Interval, Method, MetricReport, Role
from fairlead.experiment.trials import Limit, Trials
from fairlead.experiment.wording import sentence_of

ACTIVITY = "requests_per_unit"
"""Name of the activity check among the metrics."""
ACTIVITY_EFFECT = 0.1
"""Relative change of requests per unit that matters: the width of its mixture."""
MOST_UNITS = 10**12
"""A plan that takes more says so many."""
_FEWEST_TO_PLAN = 30
"""Units of each arm from which on their variance is worth extrapolating."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A treatment beside its control, in one phase."""

    name: str
    """Of the treatment."""
    control: ArmEvidence
    treatment: ArmEvidence
    smallest_share: float
    """Planned, of any arm of the phase."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """Share of wrong claims over all looks that a metric of one treatment may make."""

    claim: float
    """Superior, harmful, or non-inferior."""
    alarm: float
    """Guardrail breached, in one phase."""


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Both scales of a comparison; the clock is that of the judged one."""

    arms: tuple[ArmEstimate, ArmEstimate]
    scale: Scale
    size: float
    """What matters, in the judged scale."""
    absolute: Difference
    relative: Difference
    is_open: bool
    method: Method
    needed: float

    @property
    def judged(self) -> Difference:
        return self.relative if self.scale is Scale.RELATIVE else self.absolute

    @property
    def u(self) -> float:
        return float(bounds.clock(self.judged.variance, effect=self.size))

    @property
    def gate(self) -> Gate:
        control, treatment = self.arms
        return Gate(
            needed=self.needed,
            control=float(control.n_eff),
            treatment=float(treatment.n_eff),
            control_units=int(control.units),
            treatment_units=int(treatment.units),
            is_open=self.is_open,
        )

    def interval(self, scale: Scale, *, below: float, above: float) -> Interval | None:
        """Return the interval that reaches so many deviations below and above; None below the gate.

        The scale that is not judged has the same clock: informations of the two are in proportion.
        """
        difference = self.relative if scale is Scale.RELATIVE else self.absolute
        effect, deviation = float(difference.effect), float(difference.deviation)
        if not self.is_open or not math.isfinite(effect):
            return None
        ends = [effect, effect - below * deviation, effect + above * deviation]
        estimate_, low, high = (math.expm1(min(one, 700.0)) for one in ends) if scale is Scale.RELATIVE else ends
        return Interval(estimate=estimate_, low=low, high=high)


def judge_objective(objective: Objective, pair: Pair, allowance: Allowance, covariate: str | None) -> MetricReport:
    """Return what is shown of the objective: better, worse, not worth it, or open.

    Args:
        objective: As designed.
        pair: The two arms.
        allowance: For a claim on both sides together.
        covariate: What units were given at first exposure, if anything.
    """
    metric, effect = objective.metric, objective.minimum_effect
    size = size_of(effect, metric.better, is_gain=True)
    plain = _compared(metric, effect.scale, size, pair)
    comparison = _with_covariate(plain, metric, pair, _activity_is_even(pair, allowance)) if covariate else plain
    report = _two_sided(comparison, metric, pair, allowance, role=Role.OBJECTIVE)
    ratio = _ratio(float(comparison.judged.variance), float(plain.judged.variance))
    is_adjusted = comparison is not plain and report.gate.is_open
    return _told(
        report.model_copy(
            update={
                "limit": effect,
                "finding": _objective_finding(comparison, report, metric, size, allowance),
                "covariate": covariate if is_adjusted else None,
                "variance_ratio": ratio if is_adjusted else None,
                "planned_units": _planned(comparison, alpha=allowance.claim, sides=2),
            }
        )
    )


def judge_guardrail(guardrail: Guardrail, pair: Pair, allowance: Allowance) -> MetricReport:
    """Return what is shown of a guardrail: safe, breached, or open."""
    if guardrail.metric.kind is Kind.QUANTILE:
        return _told(_judge_quantile(guardrail, pair, allowance))
    if guardrail.metric.kind is not Kind.PROPORTION:
        return _told(_judge_margin(guardrail, pair, allowance))
    half = Allowance(allowance.claim / 2, allowance.alarm / 2)  # two ways to the same claim share its alpha
    approximate, exact = _judge_margin(guardrail, pair, half), _judge_first_values(guardrail, pair, half)
    if exact is None:
        return _told(approximate)
    findings = {approximate.finding, exact.finding}
    shown = approximate if approximate.gate.is_open else exact
    for finding in (Finding.BREACHED, Finding.NON_INFERIOR):
        if finding in findings:
            shown = approximate if approximate.finding is finding else exact
            return _told(_with_values(shown, approximate, finding))
    return _told(_with_values(shown, approximate, Finding.OPEN))


def judge_activity(pair: Pair, allowance: Allowance) -> MetricReport:
    """Return whether requests per unit differ: where they do, a ratio may move with nobody's quality changed."""
    metric = Metric(name=ACTIVITY, kind=Kind.MEAN, better=Better.HIGHER, source=Source.SYSTEM)
    comparison = _compared(metric, Scale.RELATIVE, math.log1p(ACTIVITY_EFFECT), _activity_pair(pair))
    report = _two_sided(comparison, metric, pair, allowance, role=Role.ACTIVITY)
    interval = report.relative
    differs = interval is not None and not _low(interval) <= 0 <= _high(interval)
    if comparison.is_open:
        report = report.model_copy(update={"finding": Finding.DIFFERENT if differs else Finding.OPEN})
    return _told(report)


def _compared(metric: Metric, scale: Scale, size: float, pair: Pair) -> _Comparison:
    arms, is_by_block = zip(*(_estimated(metric, arm) for arm in (pair.control, pair.treatment)), strict=True)
    control, treatment = arms
    needed = gate.needed(is_bounded=is_bounded(metric), smallest_share=pair.smallest_share)
    has_scale = scale is Scale.ABSOLUTE or (control.ratio > 0 and treatment.ratio > 0)
    return _Comparison(
        arms=(control, treatment),
        scale=scale,
        size=size,
        absolute=absolute(control, treatment),
        relative=relative(control, treatment),
        is_open=bool(gate.is_open(control, treatment, effective_units=needed)) and has_scale,
        method=Method.BLOCKS if any(is_by_block) else Method.UNITS,
        needed=needed,
    )


def _estimated(metric: Metric, arm: ArmEvidence) -> tuple[ArmEstimate, bool]:
    """Return an arm's estimate, and whether its variance is that of blocks."""
    units = estimate(arm.metrics.get(metric.name, Sums()).moments)
    if metric.name not in arm.blocks:
        return units, False
    whole = larger(units, *(estimate(each.moments) for each in arm.blocks[metric.name]))
    return whole, bool(whole.variance > units.variance)


def _two_sided(
    comparison: _Comparison, metric: Metric, pair: Pair, allowance: Allowance, *, role: Role
) -> MetricReport:
    width = float(bounds.two_sided(comparison.u, alpha=allowance.claim))
    z = float(comparison.judged.effect) / float(comparison.judged.deviation) if comparison.is_open else 0.0
    p_value = float(bounds.p_value(bounds.log_e_two_sided(z, comparison.u))) if comparison.is_open else None
    report = _report(comparison, metric, pair, role, below=width, above=width, alpha=allowance.claim)
    return report.model_copy(update={"p_value": p_value})


def _objective_finding(
    comparison: _Comparison, report: MetricReport, metric: Metric, size: float, allowance: Allowance
) -> Finding:
    if not comparison.is_open:
        return report.finding
    sign = -1.0 if metric.better is Better.LOWER else 1.0
    width = float(bounds.two_sided(comparison.u, alpha=allowance.claim) * comparison.judged.deviation)
    gain = sign * float(comparison.judged.effect)
    if gain - width > 0:
        return Finding.SUPERIOR
    if gain + width < 0:
        return Finding.HARMFUL
    return Finding.NOT_WORTHWHILE if gain + width < size else Finding.OPEN


def _judge_margin(guardrail: Guardrail, pair: Pair, allowance: Allowance) -> MetricReport:
    """Judge a guardrail by the normal mixture, one-sided on each side."""
    metric, margin = guardrail.metric, guardrail.margin
    size = size_of(margin, metric.better, is_gain=False)
    comparison = _compared(metric, margin.scale, size, pair)
    sign = 1.0 if metric.better is Better.LOWER else -1.0
    alarm, safe = (float(bounds.one_sided(comparison.u, alpha=each)) for each in (allowance.alarm, allowance.claim))
    below, above = (alarm, safe) if sign > 0 else (safe, alarm)
    report = _report(comparison, metric, pair, Role.GUARDRAIL, below=below, above=above, alpha=allowance.claim)
    report = report.model_copy(
        update={"limit": margin, "planned_units": _planned(comparison, alpha=allowance.claim, sides=1)}
    )
    if not comparison.is_open:
        return report
    deviation = float(comparison.judged.deviation)
    beyond = (sign * float(comparison.judged.effect) - size) / deviation
    harm, good = (float(bounds.log_e_one_sided(z, comparison.u)) for z in (beyond, -beyond))
    return _with_evidence(report, harm, good, allowance)


def _judge_first_values(guardrail: Guardrail, pair: Pair, allowance: Allowance) -> MetricReport | None:
    """Judge a guardrail of a proportion by exact bets on one value per unit; None without such values."""
    metric, margin = guardrail.metric, guardrail.margin
    control, treatment = (_trials(metric, arm) for arm in (pair.control, pair.treatment))
    if not (control.units and treatment.units):
        return None
    limit = _limit(margin, metric.better)
    comparison = _compared(metric, margin.scale, size_of(margin, metric.better, is_gain=False), pair)
    report = _report(comparison, metric, pair, Role.GUARDRAIL, below=0.0, above=0.0, alpha=allowance.claim)
    report = report.model_copy(
        update={"limit": margin, "method": Method.FIRST_VALUES, "relative": None, "absolute": None}
    )
    harm, good = (float(each(control, treatment, limit)) for each in (trials.log_e_harm, trials.log_e_safe))
    return _with_evidence(report, harm, good, allowance)


def _judge_quantile(guardrail: Guardrail, pair: Pair, allowance: Allowance) -> MetricReport:
    """Judge a guardrail of a quantile: each arm's interval at half the alpha, end against end."""
    metric, margin = guardrail.metric, guardrail.margin
    quantile = metric.quantile or 0.0
    safe, alarm = (
        _quantiles(metric, pair, margin, quantile, alpha / 2) for alpha in (allowance.claim, allowance.alarm)
    )
    control, treatment = safe
    lower_is_better = metric.better is Better.LOWER
    low, high = (alarm, safe) if lower_is_better else (safe, alarm)
    ratio_low, ratio_high = _over(low[1].low, low[0].high), _over(high[1].high, high[0].low)
    has_both = control.value is not None and treatment.value is not None
    is_open = has_both and math.isfinite(control.high) and control.low > 0
    n_eff = [control.n_eff, treatment.n_eff]
    report = MetricReport(
        metric=metric.name,
        role=Role.GUARDRAIL,
        treatment=pair.name,
        kind=metric.kind,
        better=metric.better,
        quantile=quantile,
        limit=margin,
        finding=Finding.OPEN if is_open else (Finding.GATED if has_both else Finding.NO_DATA),
        message="",
        control_value=control.value,
        treatment_value=treatment.value,
        scale=margin.scale,
        gate=Gate(
            needed=gate.EFFECTIVE_UNITS,
            control=n_eff[0],
            treatment=n_eff[1],
            control_units=control.units,
            treatment_units=treatment.units,
            is_open=is_open,
        ),
        method=Method.QUANTILE,
        alpha=allowance.claim,
    )
    if not is_open or control.value is None or treatment.value is None:
        return report
    report = report.model_copy(
        update={
            "relative": _bounded(treatment.value / control.value - 1, ratio_low - 1, ratio_high - 1),
            "absolute": _bounded(treatment.value - control.value, low[1].low - low[0].high, high[1].high - high[0].low),
        }
    )
    return report.model_copy(update={"finding": _quantile_finding(report, lower_is_better=lower_is_better)})


def _quantile_finding(report: MetricReport, *, lower_is_better: bool) -> Finding:
    interval, margin = report.judged, report.limit
    if interval is None or margin is None:
        return report.finding
    worst, least = (_high(interval), _low(interval)) if lower_is_better else (-_low(interval), -_high(interval))
    if least > margin.size:
        return Finding.BREACHED
    return Finding.NON_INFERIOR if worst < margin.size else Finding.OPEN


def _quantiles(
    metric: Metric, pair: Pair, margin: Effect, quantile: float, alpha: float
) -> tuple[QuantileEstimate, QuantileEstimate]:
    tails = [[tail.tail_sums for tail in arm.tails.get(metric.name, ())] for arm in (pair.control, pair.treatment)]
    effect = margin.size if margin.scale is Scale.RELATIVE else 0.1
    control, treatment = (
        estimate_quantile(each, quantile, effect=effect, alpha=alpha, one_sided=True) for each in tails
    )
    return control, treatment


def _report(
    comparison: _Comparison, metric: Metric, pair: Pair, role: Role, *, below: float, above: float, alpha: float
) -> MetricReport:
    control, treatment = comparison.arms
    has_both = bool(control.units and treatment.units)
    return MetricReport(
        metric=metric.name,
        role=role,
        treatment=pair.name,
        kind=metric.kind,
        better=metric.better,
        quantile=metric.quantile,
        finding=Finding.OPEN if comparison.is_open else (Finding.GATED if has_both else Finding.NO_DATA),
        message="",
        control_value=float(control.ratio) if control.units else None,
        treatment_value=float(treatment.ratio) if treatment.units else None,
        relative=comparison.interval(Scale.RELATIVE, below=below, above=above),
        absolute=comparison.interval(Scale.ABSOLUTE, below=below, above=above),
        scale=comparison.scale,
        gate=comparison.gate,
        method=comparison.method,
        alpha=alpha,
    )


def _with_evidence(report: MetricReport, harm: float, safe: float, allowance: Allowance) -> MetricReport:
    """Return the report with the two e-values, and the finding that they make."""
    alarm, needed = -math.log(allowance.alarm), -math.log(allowance.claim)
    finding = Finding.BREACHED if harm >= alarm else (Finding.NON_INFERIOR if safe >= needed else Finding.OPEN)
    return report.model_copy(
        update={
            "finding": finding,
            "log_e_harm": bounds.finite(harm),
            "log_e_alarm": alarm,
            "log_e_safe": bounds.finite(safe),
            "log_e_needed": needed,
        }
    )


def _with_values(shown: MetricReport, approximate: MetricReport, finding: Finding) -> MetricReport:
    """Return what decided, with the interval of the approximation wherever there is one."""
    update = {"finding": finding, "relative": approximate.relative, "absolute": approximate.absolute}
    return shown.model_copy(update=update)


def _with_covariate(comparison: _Comparison, metric: Metric, pair: Pair, by_request: bool) -> _Comparison:
    sums = [arm.metrics.get(metric.name, Sums()) for arm in (pair.control, pair.treatment)]
    known = [one.covariate.moments for one in sums if one.covariate is not None]
    if comparison.method is Method.BLOCKS or len(known) < len(sums) or differs(*known):
        return comparison
    control, treatment = (
        tie(one.moments, covariate, by_request=by_request) for one, covariate in zip(sums, known, strict=True)
    )
    if not control.variance + treatment.variance > 0:
        return comparison
    ratios = (comparison.arms[0].ratio, comparison.arms[1].ratio)
    return replace(
        comparison,
        absolute=adjusted(comparison.absolute, control, treatment, scale=(1.0, 1.0)),
        relative=adjusted(comparison.relative, control, treatment, scale=ratios),
    )


def _activity_is_even(pair: Pair, allowance: Allowance) -> bool:
    """Return whether requests per unit were looked at and show no difference."""
    return judge_activity(pair, allowance).finding is Finding.OPEN


def _activity_pair(pair: Pair) -> Pair:
    arms = [
        ArmEvidence(metrics={ACTIVITY: arm.activity} if arm.activity else {}) for arm in (pair.control, pair.treatment)
    ]
    return replace(pair, control=arms[0], treatment=arms[1])


def _planned(comparison: _Comparison, *, alpha: float, sides: int) -> int | None:
    """Return the units of both arms that find what matters, by the variance per unit seen so far."""
    units = [int(arm.units) for arm in comparison.arms]
    variance = float(comparison.judged.variance)
    if min(units) < _FEWEST_TO_PLAN or not math.isfinite(variance) or not variance > 0:
        return None
    if not math.isfinite(float(comparison.judged.effect)):
        return None
    wanted = sum(units) * variance * information_needed(comparison.size, alpha=alpha, sides=sides)
    return math.ceil(min(wanted, MOST_UNITS))


def _trials(metric: Metric, arm: ArmEvidence) -> Trials:
    """Return an arm's first values, oriented so that more is worse."""
    seen = arm.first_values.get(metric.name)
    if seen is None:
        return Trials(0, 0.0)
    total = min(seen.total, float(seen.units))
    return Trials(seen.units, total if metric.better is Better.LOWER else seen.units - total)


def _limit(margin: Effect, better: Better) -> Limit:
    """Return a margin as what the worse share may be at most; of what is better, the share of its opposite."""
    if margin.scale is Scale.ABSOLUTE:
        return Limit(slope=1.0, shift=margin.size)
    if better is Better.LOWER:
        return Limit(slope=1.0 + margin.size, shift=0.0)
    return Limit(slope=1.0 - margin.size, shift=margin.size)


def _told(report: MetricReport) -> MetricReport:
    return report.model_copy(update={"message": sentence_of(report)})


def _bounded(estimate_: float, low: float, high: float) -> Interval:
    return Interval(
        estimate=estimate_,
        low=low if math.isfinite(low) else None,
        high=high if math.isfinite(high) else None,
    )


def _low(interval: Interval) -> float:
    return -math.inf if interval.low is None else interval.low


def _high(interval: Interval) -> float:
    return math.inf if interval.high is None else interval.high


def _over(upper: float, lower: float) -> float:
    return upper / lower if lower > 0 else math.inf


def _ratio(adjusted_variance: float, variance: float) -> float | None:
    return adjusted_variance / variance if math.isfinite(variance) and variance > 0 else None
