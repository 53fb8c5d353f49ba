"""An experiment in a terminal: what its page says, in as many columns as there are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fairlead.cli.errors import CommandError
from fairlead.cli.ledger import Ledger, Told
from fairlead.experiment import record as records
from fairlead.experiment import words
from fairlead.experiment.design import Better, Design, Scale, Source
from fairlead.experiment.errors import AlteredRecord
from fairlead.experiment.record import DecisionRecord
from fairlead.experiment.report import MetricReport, Report, Role

BAR_COLUMNS = 41
_PIPED_WIDTH = 120
"""Columns where no terminal says how many it has."""
_FARTHEST = 8.0
_STYLES = {
    words.Tone.GOOD: "green",
    words.Tone.BAD: "red",
    words.Tone.WAIT: "yellow",
    words.Tone.VOID: "magenta",
}
_SIGNS = {words.Tone.GOOD: "✓", words.Tone.BAD: "✗", words.Tone.WAIT: "…", words.Tone.VOID: "!"}


@dataclass(frozen=True, slots=True)
class Shown:
    """All that is shown of an experiment."""

    told: Told
    design: Design
    reports: tuple[Report, ...]
    """Of the steps that have begun, in order; once it was decided, the last one is that of the record."""
    record: DecisionRecord | None
    page: str

    @classmethod
    def of(cls, ledger: Ledger, told: Told) -> Shown:
        """Ask a ledger for what is shown.

        Raises:
            CommandError: It is not declared, or the ledger does not answer.
        """
        if told.design is None:
            raise CommandError(f"{told.salt}: servers tell of it, but nobody has declared it; is the operator running?")
        record = _record(ledger, told.salt)
        evidence = ledger.evidence(told.salt) if told.state != "Purged" else None
        begun = [phase.number for phase in evidence.phases] if evidence else []
        reports = tuple(_report(ledger, told, number, record) for number in begun)
        if not reports and record is not None:
            reports = (record.report,)
        return cls(told, told.design, reports, record, ledger.page(told.salt))

    @property
    def document(self) -> dict[str, Any]:
        """The same as JSON has it."""
        return {
            "experiment": self.told.model_dump(mode="json"),
            "reports": [one.model_dump(mode="json") for one in self.reports],
            "record": json.loads(self.record.json_text) if self.record else None,
            "page": self.page,
        }


def print_list(found: Sequence[Told]) -> None:
    """Print the list of experiments."""
    console = _console()
    if not found:
        console.print("There is no experiment yet; a ModelDeployment with a block experiment makes one.")
        return
    table = _table("experiment", "state", "verdict", "since", "treatments", "objective")
    for one in found:
        design = one.design
        objective = design.objective.metric.name if design and design.objective else words.DASH
        treatments = words.listed(design.treatments) if design else words.DASH
        since = words.moment(one.created_us)
        table.add_row(*map(Text, (one.salt, _state(one), _last(one), since, treatments, objective)))
    console.print(table)


def _state(one: Told) -> str:
    return f"{one.state}, {words.ACTIONS[one.last.action]}" if one.last and one.last.action else one.state


def _last(one: Told) -> str:
    last = one.last
    return words.badge_of(last.verdict, last.reason, last.phase, one.design) if last and one.design else words.DASH


def print_experiment(shown: Shown) -> None:
    """Print one experiment."""
    console = _console()
    for part in _verdict(shown):
        console.print(part)
    for report in reversed(shown.reports):
        console.print()
        for part in _phase(shown.design, report):
            console.print(part)
    console.print()
    console.print(Text(f"Page: {shown.page}"), soft_wrap=True)


def _record(ledger: Ledger, salt: str) -> DecisionRecord | None:
    text = ledger.record(salt)
    try:
        return None if text is None else records.read(text)
    except AlteredRecord as wrong:
        raise CommandError(f"{ledger.address}: the record of {salt} {wrong}") from None


def _report(ledger: Ledger, told: Told, phase: int, record: DecisionRecord | None) -> Report:
    if record is not None and told.ended_us is not None and record.report.phase == phase:
        return record.report
    return ledger.analysis(told.salt, phase)


def _verdict(shown: Shown) -> Iterator[Text]:
    design, judged = shown.design, shown.reports[-1] if shown.reports else None
    tone = words.TONES[judged.verdict] if judged else words.Tone.WAIT
    badge = words.badge(judged, design) if judged else "Not begun"
    yield Text.assemble((f"{_SIGNS[tone]} {badge}", f"bold {_STYLES[tone]}"), "   ", (design.salt, "dim"))
    if judged is None:
        yield Text("Nobody has been exposed to any arm yet.", "bold")
        return
    yield Text(words.headline(judged, design), "bold")
    yield Text(_done(shown, judged))
    for line in words.not_meant(judged):
        yield Text(f"  • {line}", "dim")


def _done(shown: Shown, judged: Report) -> str:
    if shown.record is None:
        return words.not_decided(shown.design, judged, has_ended=shown.told.ended_us is not None)
    decision = shown.record.decision
    return f"{words.moment(decision.at_us)}: {words.decided(decision, shown.design)}"


def _phase(design: Design, report: Report) -> Iterator[Any]:
    yield Text.assemble((words.step_name(design, report.phase), "bold underline"), (f"   {_plan(report)}", "dim"))
    if not report.is_final:
        yield Text(words.badge(report, design), "dim")
    for one in report.metrics:
        if one.role is not Role.ACTIVITY:
            yield from _metric(report, one)
    yield _units(design, report)
    yield Text("Shares are as planned." if not report.sample_ratio.is_broken else "Shares are not as planned!", "dim")


def _plan(report: Report) -> str:
    plan = report.plan
    planned = f" of {plan.planned_units:,} planned" if plan.planned_units else ""
    return f"{plan.seen_units:,}{planned} units, {words.duration(plan.elapsed_s)}"


def _metric(report: Report, metric: MetricReport) -> Iterator[Any]:
    limit = words.size(metric.limit, metric.kind) if metric.limit else ""
    name = "smallest change worth shipping" if metric.role is Role.OBJECTIVE else "margin"
    yield Text.assemble(
        (f"  {metric.metric}", "bold"),
        f" of {metric.treatment}, {words.better(metric.better)} ({metric.role.value.lower()}, {name} {limit}): ",
        (words.FINDINGS[metric.finding], "bold"),
    )
    if metric.role is Role.OBJECTIVE:
        yield Padding(Text(report.estimand, "dim"), (0, 0, 0, 4))
    judged = metric.judged
    if judged is None:
        yield Text(f"    {metric.message}")
        return
    yield Text(f"    {interval_bar(metric)}  {_change(metric, metric.scale)}")
    other = Scale.ABSOLUTE if metric.scale is Scale.RELATIVE else Scale.RELATIVE
    values = (
        f"{words.level(metric.treatment_value, metric.kind)} against {words.level(metric.control_value, metric.kind)}"
    )
    yield Text(f"    {values} with control; {other.value.lower()} {_change(metric, other)}", "dim")


def _change(metric: MetricReport, scale: Scale) -> str:
    known = metric.relative if scale is Scale.RELATIVE else metric.absolute
    if known is None:
        return words.DASH
    return f"{words.change(known.estimate, scale, metric.kind)} ({words.interval(known, scale, metric.kind)})"


def interval_bar(metric: MetricReport, columns: int = BAR_COLUMNS) -> str:
    """Return an interval as a line: ``━●━`` the interval, ``│`` no change, ``┆`` what it is held against.

    Args:
        metric: With an interval and a limit.
        columns: Of the line; odd, so that no change is in the middle.
    """
    judged, limit = metric.judged, metric.limit
    if judged is None or limit is None:
        return ""
    ends = [abs(end) for end in (judged.low, judged.high, judged.estimate) if end is not None]
    reach = min(max(*ends, limit.size) * 1.15, max(_FARTHEST * limit.size, 1.25 * abs(judged.estimate)))
    worse = 1 if metric.better is Better.LOWER else -1
    held = limit.size * (-worse if metric.role is Role.OBJECTIVE else worse)
    cells = ["┈"] * columns
    low, high = (_place(end, reach, columns) for end in (_or(judged.low, -reach), _or(judged.high, reach)))
    for at in range(low, high + 1):
        cells[at] = "━"
    for value, sign in ((held, "┆"), (0.0, "│"), (judged.estimate, "●")):
        cells[_place(value, reach, columns)] = sign
    return "".join(["◀" if judged.low is None or judged.low < -reach else " ", *cells, _right_end(judged.high, reach)])


def _right_end(high: float | None, reach: float) -> str:
    return "▶" if high is None or high > reach else " "


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _place(value: float, reach: float, columns: int) -> int:
    return round((max(-reach, min(reach, value)) / reach + 1) / 2 * (columns - 1))


def _units(design: Design, report: Report) -> Table:
    arms = report.arms
    table = _table("", *(one.variant for one in arms))
    rows = {
        "units": [words.count(one.units) for one in arms],
        "share (planned)": [f"{words.share(one.share)} ({words.share(one.target)})" for one in arms],
        "requests per unit": [f"{one.requests_per_unit:.2f}" for one in arms],
        "errors": [words.count(one.errors) for one in arms],
    }
    for failure, name in words.failures(arms).items():
        rows[f"… {name}"] = [words.count(one.failures.get(failure, 0)) for one in arms]
    if any(metric.source is not Source.SYSTEM for metric in design.metrics.values()):
        rows["outcomes used"] = [words.count(one.labelled_requests) for one in arms]
        rows["outcomes pending"] = [words.count(one.pending_requests) for one in arms]
        rows["outcomes never arriving"] = [words.count(one.missing_requests) for one in arms]
    for name, cells in rows.items():
        table.add_row(Text(f"  {name}", "dim"), *map(Text, cells))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(Text(column), overflow="fold", justify="left" if number == 0 else "right")
    return table


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _PIPED_WIDTH)
    return console
