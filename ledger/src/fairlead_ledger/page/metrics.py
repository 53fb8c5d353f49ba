"""What is said of the metrics of a phase: pictures of intervals, and tables of figures. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fairlead.experiment import words
from fairlead.experiment.design import Better, Design, Metric, Scale
from fairlead.experiment.report import Method, MetricReport, Point, Report, Role
from fairlead_ledger.page import charts
from fairlead_ledger.page.charts import Against, Drawing, Look, PathDrawing, Threshold
from fairlead_ledger.page.parts import MetricPart, Picture, Row, Table

MOST_PATHS = 3
"""Treatments whose interval is drawn over time; of more the figures are in the JSON."""

Looks = Mapping[tuple[int, str, str], Sequence[Point]]
"""Looks at a metric by phase, metric and treatment, in order of time."""

_METHODS: Mapping[Method, str] = {
    Method.UNITS: "units",
    Method.BLOCKS: "servers and minutes",
    Method.FIRST_VALUES: "one value per unit, exact",
    Method.QUANTILE: "shares above thresholds",
}


def metric_parts(design: Design, report: Report, looks: Looks, decided_us: int | None) -> Iterator[MetricPart]:
    """Yield a part for the objective and for each guardrail.

    Args:
        design: As planned.
        report: Of one phase.
        looks: At all phases.
        decided_us: When it was decided, if that was in this phase.
    """
    told = [one for one in report.metrics if one.role is not Role.ACTIVITY]
    for name in dict.fromkeys((one.role, one.metric) for one in told):
        yield _metric(design, report, [one for one in told if (one.role, one.metric) == name], looks, decided_us)


def _metric(
    design: Design, report: Report, told: Sequence[MetricReport], looks: Looks, decided_us: int | None
) -> MetricPart:
    first = told[0]
    key = f"step-{report.phase}-{first.role.value.lower()}-{first.metric.replace('_', '-')}"
    declared = design.metrics.get(first.metric)
    return MetricPart(
        key=key,
        role=first.role.value,
        title=_title(first, declared),
        estimand=_estimand(design, report, first, declared),
        pictures=tuple(_pictures(report.phase, told, looks, key, decided_us)),
        table=_figures(told),
        notes=tuple(f"{one.treatment}: {one.message}" if len(told) > 1 else one.message for one in told if one.message),
    )


def _title(metric: MetricReport, declared: Metric | None) -> str:
    name = metric.metric
    if declared and declared.quantile is not None:
        name = f"{words.quantile_name(declared.quantile)} of {name}"
    return f"{name}: {words.better(metric.better)}"


def _estimand(design: Design, report: Report, metric: MetricReport, declared: Metric | None) -> str:
    if metric.role is Role.OBJECTIVE and report.estimand:
        return report.estimand
    return words.estimand(declared, design) if declared else ""


def against_of(metric: MetricReport) -> Against | None:
    """Return what a metric's effect is held against; None where nothing is."""
    if metric.limit is None:
        return None
    threshold = Threshold.MINIMUM if metric.role is Role.OBJECTIVE else Threshold.MARGIN
    lower = metric.better is Better.LOWER
    down = lower if threshold is Threshold.MINIMUM else not lower
    return Against(
        threshold=threshold,
        at=-metric.limit.size if down else metric.limit.size,
        lower_is_better=lower,
        label=lambda effect: words.change(effect, metric.scale, metric.kind),
    )


def _pictures(
    phase: int, told: Sequence[MetricReport], looks: Looks, key: str, decided_us: int | None
) -> Iterator[Picture]:
    against = against_of(told[0])
    if against is None:
        return
    bars = [bar for one in told if (bar := _interval(one)) is not None]
    if bars:
        yield _now(told, against, key, charts.drawn(bars, against))
    for one in told[:MOST_PATHS]:
        seen = [_look(point) for point in looks.get((phase, one.metric, one.treatment), ())]
        path = charts.drawn_path(seen, against, decided_us=decided_us)
        if path is not None:
            yield _over_time(one, against, f"{key}-{one.treatment}", path)


def _interval(metric: MetricReport) -> charts.Interval | None:
    judged = metric.judged
    if judged is None:
        return None
    return charts.Interval(metric.treatment, judged.low, judged.high, judged.estimate)


def _look(point: Point) -> Look:
    known = None if point.effect is None else charts.Interval("", point.low, point.high, point.effect)
    return Look(point.at_us, known)


def _now(told: Sequence[MetricReport], against: Against, key: str, drawing: Drawing) -> Picture:
    known = [one for one in told if one.judged]
    said = "; ".join(f"{one.treatment} {words.interval(one.judged, one.scale, one.kind)}" for one in known)
    return Picture(
        key=f"{key}-now",
        over_time=False,
        drawing=drawing,
        title=f"{told[0].metric}: change against control, now",
        description=f"Interval of {said}. {_threshold(against)}",
        caption=f"Now: change against control. {_threshold(against)}",
    )


def _over_time(metric: MetricReport, against: Against, key: str, drawing: PathDrawing) -> Picture:
    return Picture(
        key=f"{key}-path",
        over_time=True,
        drawing=drawing,
        title=f"{metric.metric} of {metric.treatment}: change against control, over time",
        description=f"Now {words.interval(metric.judged, metric.scale, metric.kind)}. {_threshold(against)}",
        caption=f"Over time: change with {metric.treatment}. The band holds at every look, so looking costs nothing.",
    )


def _threshold(against: Against) -> str:
    at = against.label(against.at)
    if against.threshold is Threshold.MINIMUM:
        return f"Green, from {at} on, is worth shipping."
    return f"Red, beyond {at}, is more than the margin allows."


def _figures(told: Sequence[MetricReport]) -> Table:
    rows = [Row(name, tuple(cell or words.DASH for cell in cells)) for name, cells in _figure_rows(told) if any(cells)]
    return Table(f"{told[0].metric} against control", tuple(one.treatment for one in told), tuple(rows))


def _figure_rows(told: Sequence[MetricReport]) -> Iterator[tuple[str, list[str]]]:
    """Yield names and cells; an empty cell is one where nothing is to be said."""
    yield "Found", [words.FINDINGS[one.finding] for one in told]
    for scale in Scale:
        yield f"{scale} change", [_change(one, scale) for one in told]
    yield "With control", [words.level(one.control_value, one.kind) for one in told]
    yield "With the treatment", [words.level(one.treatment_value, one.kind) for one in told]
    limit = "Smallest change worth shipping" if told[0].role is Role.OBJECTIVE else "Margin"
    yield limit, [words.size(one.limit, one.kind) if one.limit else "" for one in told]
    yield "p-value, always valid", [words.p_value(one.p_value) if one.p_value is not None else "" for one in told]
    yield "Variance left by the covariate", [words.share(one.variance_ratio) if one.covariate else "" for one in told]
    if any(one.method is not Method.UNITS for one in told):
        yield "Variance is that of", [_METHODS[one.method] for one in told]
    yield "Units it takes (80 % power)", [words.count(one.planned_units) if one.planned_units else "" for one in told]


def _change(metric: MetricReport, scale: Scale) -> str:
    known = metric.relative if scale is Scale.RELATIVE else metric.absolute
    if known is None:
        return ""
    return f"{words.change(known.estimate, scale, metric.kind)} ({words.interval(known, scale, metric.kind)})"
