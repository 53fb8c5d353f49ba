"""What is said of the units of a phase: how many, what of theirs counts, and whether each arm has its share. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fairlead.experiment import gate, words
from fairlead.experiment.design import Design, Source
from fairlead.experiment.report import ArmReport, Method, MetricReport, Report, Role
from fairlead_ledger.page.parts import Row, Table


def units_table(design: Design, report: Report) -> Table:
    """Return units, requests and outcomes of each arm."""
    arms = report.arms
    names = tuple(one.variant for one in arms)
    return Table("Units, requests and outcomes per arm", names, tuple(_unit_rows(design, report, arms)))


def _unit_rows(design: Design, report: Report, arms: Sequence[ArmReport]) -> Iterator[Row]:
    def row(name: str, *cells: str) -> Row:
        return Row(name, cells)

    yield row("Units", *(words.count(one.units) for one in arms))
    effective = _effective(report)
    if effective:
        yield row("Effective units", *(words.count(effective.get(one.variant)) for one in arms))
    yield row("Requests", *(words.count(one.requests) for one in arms))
    yield row("Requests per unit", *(f"{one.requests_per_unit:.2f}" for one in arms))
    yield row("Answered with an error, or not at all", *(words.count(one.errors) for one in arms))
    for failure, name in words.failures(arms).items():
        yield row(f"… {name}", *(words.count(one.failures.get(failure, 0)) for one in arms))
    if expects_outcomes(design):
        yield row("Units old enough to be judged", *(words.count(one.matured_units) for one in arms))
        yield row("… with an outcome", *(words.count(one.labelled_units) for one in arms))
        yield row("… share with an outcome", *(words.share(one.label_coverage) for one in arms))
        yield row("Outcomes mature, and used", *(words.count(one.labelled_requests) for one in arms))
        yield row("Outcomes pending", *(words.count(one.pending_requests) for one in arms))
        yield row("Outcomes never arriving", *(words.count(one.missing_requests) for one in arms))
    for why in dict.fromkeys(why for one in arms for why in one.left_out):
        yield row(f"Left out: {words.spaced(why).lower()}", *(words.count(one.left_out.get(why, 0)) for one in arms))


def _effective(report: Report) -> Mapping[str, float]:
    """Return the effective units of each arm for the objective, or for the first metric if there is none."""
    told = [one for one in report.metrics if one.role is not Role.ACTIVITY]
    if not told:
        return {}
    first = [one for one in told if (one.role, one.metric) == (told[0].role, told[0].metric)]
    return {report.arms[0].variant: told[0].gate.control, **{one.treatment: one.gate.treatment for one in first}}


def units_notes(design: Design, report: Report) -> Iterator[str]:
    """Yield what must be known to read them."""
    told = [one for one in report.metrics if one.role is not Role.ACTIVITY]
    if told:
        needed = told[0].gate.needed
        closed = [one for one in told if not one.gate.is_open and one.method is not Method.FIRST_VALUES]
        yield (
            f"Effective units are how many units of equal weight would be as sure ({told[0].metric}). An interval is "
            f"shown from {words.count(needed)} of them and {gate.UNITS} units in each arm on: "
            f"{'the gate is open.' if not closed else f'closed for {words.listed(_names(closed))}.'}"
        )
    activity = [one for one in report.metrics if one.role is Role.ACTIVITY]
    for one in activity:
        yield f"Requests per unit of {one.treatment}: {words.FINDINGS[one.finding]}. {one.message}".strip()
    if report.label_coverage and report.label_coverage.is_broken:
        yield "Outcomes are missing more often in one arm than can be by chance."
    if any(one.matured_requests == 0 and one.units for one in report.arms) and expects_outcomes(design):
        yield f"A request is judged once it is older than {words.duration(design.outcome_window_s)}."


def _names(told: Sequence[MetricReport]) -> list[str]:
    return list(dict.fromkeys(f"{one.metric} of {one.treatment}" for one in told))


def ratio_table(report: Report) -> Table:
    """Return the share of each arm against its target."""
    arms = report.arms
    total = sum(one.first_exposures for one in arms)
    rows = (
        Row("Planned share", tuple(words.share(one.target) for one in arms)),
        Row("Seen share", tuple(words.share(one.share) for one in arms)),
        Row("First exposures", tuple(words.count(one.first_exposures) for one in arms)),
        Row("Expected", tuple(words.count(one.target * total) for one in arms)),
    )
    return Table("Share of units against plan", tuple(one.variant for one in arms), rows)


def ratio_words(report: Report) -> str:
    """Return whether the shares are as planned, in words."""
    check = report.sample_ratio
    if check.is_broken:
        rare = words.count(1 / max(check.p_value, 1e-9))
        return (
            f"Shares so far from the plan come by chance less than once in {rare} experiments: units are lost, or "
            "counted twice, in one arm. Nothing can be concluded until the cause is found."
        )
    return f"The shares are those that chance alone gives (p {words.p_value(check.p_value)}, always valid)."


def expects_outcomes(design: Design) -> bool:
    """Say whether a metric is told by an application, so that outcomes are waited for."""
    return any(metric.source is not Source.SYSTEM for metric in design.metrics.values())
