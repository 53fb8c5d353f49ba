"""What the page of one experiment says, from its design, reports and looks. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fairlead.experiment import words
from fairlead.experiment.design import Design
from fairlead.experiment.report import Report
from fairlead_ledger.page import units
from fairlead_ledger.page.metrics import Looks, metric_parts
from fairlead_ledger.page.parts import Fact, Link, Page, PhasePart


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided, and when."""

    at_us: int
    words: str
    digest: str
    """Of the record."""


@dataclass(frozen=True, slots=True)
class Known:
    """All that the ledger knows of one experiment."""

    design: Design
    reports: Sequence[Report]
    """Of the phases that have begun, in order."""
    looks: Looks = field(default_factory=dict)
    decided: Decided | None = None
    started_us: int | None = None
    ended: bool = False
    erased: int = 0
    """Units that were erased."""


def page_of(known: Known) -> Page:
    """Return what the page says."""
    design = known.design
    deployment, _, id_ = design.salt.rpartition("/")
    judged = known.reports[-1] if known.reports else None
    return Page(
        salt=design.salt,
        deployment=deployment,
        id=id_,
        home="/experiments",
        tone=words.TONES[judged.verdict] if judged else words.Tone.WAIT,
        badge=words.badge(judged, design) if judged else "Not begun",
        headline=words.headline(judged, design) if judged else "Not begun: nobody has been exposed to any arm yet.",
        done=_done(known),
        not_meant=words.not_meant(judged) if judged else ("Not that anything is wrong: steps begin with traffic.",),
        facts=tuple(_facts(known, judged)),
        phases=tuple(_phase(known, report) for report in reversed(known.reports)),
        reading=tuple(_reading(design)),
        links=tuple(_links(known)),
        small=tuple(_small(known, judged)),
    )


def _done(known: Known) -> str:
    if known.decided:
        return f"{words.moment(known.decided.at_us)}: {known.decided.words}"
    last = known.reports[-1] if known.reports else None
    return words.not_decided(known.design, last, has_ended=known.ended)


def _facts(known: Known, judged: Report | None) -> Iterator[Fact]:
    design = known.design
    yield Fact("Compared", f"{words.listed(design.treatments)} against {design.control} (control)")
    if design.is_canary:
        yield Fact("Kind", "canary: two revisions of one variant; its steps' time decides, or a breached guardrail")
    if design.objective:
        metric, least = design.objective.metric, design.objective.minimum_effect
        yield Fact("Smallest change worth shipping", f"{words.size(least, metric.kind)} of {metric.name}")
    yield Fact("Wrong claims allowed", f"{words.chance(design.alpha)} of experiments, over all looks")
    if units.expects_outcomes(design):
        yield Fact("Outcomes are waited for", words.duration(design.outcome_window_s))
    if known.started_us is not None:
        yield Fact("Began", words.moment(known.started_us))
    if judged is None:
        return
    plan = judged.plan
    yield Fact(
        "Units in this step", _of(words.count(plan.seen_units), plan.planned_units and f"{plan.planned_units:,}")
    )
    most = f", at most {words.duration(plan.maximum_s)}" if plan.maximum_s is not None else ""
    planned = words.duration(plan.planned_s) if plan.planned_s is not None else None
    yield Fact("Time in this step", _of(words.duration(plan.elapsed_s), planned) + most)
    yield Fact("As of", words.moment(judged.at_us))


def _of(seen: str, planned: str | int | None) -> str:
    return f"{seen} of {planned} planned" if planned else seen


def _phase(known: Known, report: Report) -> PhasePart:
    design = known.design
    fine = not report.sample_ratio.is_broken
    decided_us = known.decided.at_us if known.decided and report is known.reports[-1] else None
    return PhasePart(
        key=f"step-{report.phase}",
        title=words.step_name(design, report.phase),
        lead=tuple(_lead(design, report, known.reports[-1])),
        metrics=tuple(metric_parts(design, report, known.looks, decided_us)),
        units=units.units_table(design, report),
        units_notes=tuple(units.units_notes(design, report)),
        ratio=units.ratio_table(report),
        ratio_state="As planned." if fine else "Not as planned.",
        ratio_words=units.ratio_words(report),
        ratio_tone=words.Tone.GOOD if fine else words.Tone.VOID,
    )


def _lead(design: Design, report: Report, last: Report) -> Iterator[str]:
    if report is not last:
        yield f"{words.badge(report, design)}. {report.message}".strip()
    elif report.message:
        yield report.message
    if not report.is_final and design.objective:
        yield "Only guardrails are judged in this step; the objective is judged in the last one alone."


def _reading(design: Design) -> Iterator[str]:
    yield (
        "Intervals hold at every look at once: whoever watches all the time is misled as rarely as whoever looks once. "
        f"Of experiments without any difference at most {words.chance(design.alpha)} ever claim one."
    )
    yield "Whatever stops at the first sign overstates the effect; the longer it runs, the less."
    yield (
        "Each step is compared within itself, and steps are never pooled: while the share of a treatment grows and the "
        "world changes, pooled figures show differences that are not there."
    )
    yield (
        f"Of each unit at most {design.requests_per_unit:,} requests of a step count, so that a few heavy ones do not "
        "speak for all."
    )


def _links(known: Known) -> Iterator[Link]:
    base = f"/v1/experiments/{known.design.salt}"
    yield Link("design and state", base)
    for report in known.reports:
        yield Link(f"analysis of step {report.phase + 1}", f"{base}/analysis?phase={report.phase}")
    yield Link("evidence", f"{base}/evidence")
    if known.decided:
        yield Link("decision record", f"{base}/record")


def _small(known: Known, judged: Report | None) -> Iterator[str]:
    yield f"Design {known.design.digest}"
    if known.decided:
        yield f"Decision record {known.decided.digest}; fairlead experiment verify recomputes it."
    if known.erased:
        units = "unit was" if known.erased == 1 else "units were"
        kept = (
            "these are still the record's figures" if known.decided else "what they had told is in no figure any more"
        )
        yield f"{known.erased:,} {units} erased at somebody's request; {kept}."
    if judged is None:
        yield f"Planned: {'; '.join(words.step_name(known.design, one.number) for one in known.design.phases)}"
