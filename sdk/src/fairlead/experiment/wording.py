"""The sentences of a report, made of `fairlead.experiment.words`."""

from __future__ import annotations

import math

from fairlead.experiment import words
from fairlead.experiment.design import Design
from fairlead.experiment.report import Finding, Method, MetricReport, Role

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
    treatment, control = (words.level(one, report.kind) for one in (report.treatment_value, report.control_value))
    values = f"{report.metric}: {treatment} against {control} in control"
    if report.finding is Finding.GATED:
        seen, needed = math.floor(min(report.gate.control, report.gate.treatment)), report.gate.needed
        return (
            f"{values}; {words.count(seen)} effective units in the smaller arm, {words.count(needed)} are needed "
            "before anything can be said."
        )
    found = "no difference shown" if _is_even(report) else _FOUND[report.finding]
    if report.judged is not None:
        change = words.change(report.judged.estimate, report.scale, report.kind)
        between = f", {change} ({words.interval(report.judged, report.scale, report.kind)})"
    else:
        between = " (one value per unit, exact)" if report.method is Method.FIRST_VALUES else ""
    return f"{values}{between}; {found}{_limit(report)}."


def estimand_of(design: Design) -> str:
    """Return what the objective's effect is an effect on."""
    if design.objective is None:
        return "No objective: only the guardrails are judged."
    wait = words.duration(design.outcome_window_s)
    judged = f" Requests are judged {wait} after they were made." if design.outcome_window_s else ""
    what = words.estimand(design.objective.metric, design)
    return f"{what}{judged} Units with more requests weigh more, up to that number."


def _is_even(report: MetricReport) -> bool:
    return report.finding is Finding.OPEN and report.role is Role.ACTIVITY


def _limit(report: MetricReport) -> str:
    if report.limit is None:
        return ""
    name = "minimum effect" if report.role is Role.OBJECTIVE else "margin"
    return f" ({words.better(report.better)}, {name} {words.size(report.limit, report.kind)})"
