"""Figures in words: what a report says to whoever reads no tables."""

from __future__ import annotations

from fairlead.experiment.design import Better, Design, Effect, Kind, Scale
from fairlead.experiment.report import Finding, Interval, Method, MetricReport, Role

_FOUND = {
    Finding.SUPERIOR: "better than control",
    Finding.HARMFUL: "worse than control",
    Finding.NOT_WORTHWHILE: "whatever the effect is, it is smaller than the minimum effect",
    Finding.NON_INFERIOR: "no worse than the margin allows",
    Finding.BREACHED: "worse by more than the margin",
    Finding.DIFFERENT: "not the same in both arms: a ratio may move with nobody's quality changed",
    Finding.OPEN: "not decided",
}


def sentence_of(report: MetricReport) -> str:
    """Return what one metric shows, in a sentence with its figures."""
    if report.finding is Finding.NO_DATA:
        return f"{report.metric}: nothing that counts was seen yet in one of the arms."
    values = f"{number(report.treatment_value)} against {number(report.control_value)} in control"
    if report.finding is Finding.GATED:
        gate = report.gate
        return (
            f"{report.metric}: {values}; {number(min(gate.control, gate.treatment))} effective units in the smaller "
            f"arm, {number(gate.needed)} are needed before anything can be said."
        )
    found = _FOUND[report.finding]
    if report.finding is Finding.OPEN and report.role is Role.ACTIVITY:
        found = "no difference shown"
    if report.judged is None:
        exact = " (one value per unit, exact)" if report.method is Method.FIRST_VALUES else ""
        return f"{report.metric}: {values}{exact}; {found}{_limit(report)}."
    return f"{report.metric}: {values}, {interval_of(report.judged, report.scale)}; {found}{_limit(report)}."


def interval_of(interval: Interval, scale: Scale) -> str:
    """Return an estimate with its bounds."""
    show = percent if scale is Scale.RELATIVE else number
    low = "no lower bound" if interval.low is None else f"at least {show(interval.low)}"
    high = "no upper bound" if interval.high is None else f"at most {show(interval.high)}"
    if interval.low is not None and interval.high is not None:
        return f"{show(interval.estimate)} ({show(interval.low)} to {show(interval.high)})"
    return f"{show(interval.estimate)} ({low}, {high})"


def effect_of(effect: Effect) -> str:
    """Return the size of an effect."""
    return f"{effect.size * 100:.4g} %" if effect.scale is Scale.RELATIVE else f"{effect.size:.4g}"


def estimand_of(design: Design) -> str:
    """Return what the objective's effect is an effect on."""
    if design.objective is None:
        return "No objective: only the guardrails are judged."
    metric = design.objective.metric
    what = "share" if metric.kind is Kind.PROPORTION else "average"
    better = "lower" if metric.better is Better.LOWER else "higher"
    wait = f", judged {duration(design.outcome_window_s)} after the request" if design.outcome_window_s else ""
    return (
        f"{what.capitalize()} {metric.name} over each unit's first {design.requests_per_unit} requests in this phase"
        f"{wait}; {better} is better. Units with more requests weigh more, up to that number."
    )


def duration(seconds: float) -> str:
    """Return a time in its natural unit."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def percent(value: float) -> str:
    """Return a relative effect with its sign."""
    return f"{value * 100:+.3g} %"


def number(value: float | None) -> str:
    """Return a figure with four digits."""
    return "nothing" if value is None else f"{value:.4g}"


def _limit(report: MetricReport) -> str:
    if report.limit is None:
        return ""
    name = "minimum effect" if report.role is Role.OBJECTIVE else "margin"
    better = "lower" if report.better is Better.LOWER else "higher"
    return f" ({better} is better, {name} {effect_of(report.limit)})"
