"""A canary is an experiment between two revisions, with guardrails alone: what is judged, and how it is told."""

from __future__ import annotations

import pytest

from fairlead.experiment import words
from fairlead.experiment.analysis import analyse
from fairlead.experiment.decision import Action, Decision
from fairlead.experiment.design import Design, Phase, canary_id
from fairlead.experiment.evidence import ArmEvidence, Evidence, PhaseEvidence, Sums
from fairlead.experiment.report import Finding, Reason, Report, Verdict
from support.reports import Findings, flights_design, flights_report

OLD, NEW = "arrival-delay-logistic-91ab07c4", "arrival-delay-logistic-6f1c9d02"
ID = canary_id(NEW, 1_763_743_418)
HOUR_US = 3_600_000_000


def canary(**changed: object) -> Design:
    """Return the design of a canary at 10 % and then 50 %."""
    usual: dict[str, object] = {
        "salt": f"flights/arrival-delay/{ID}",
        "control": OLD,
        "treatments": (NEW,),
        "phases": (Phase(number=0, weights_bp={NEW: 1000}), Phase(number=1, weights_bp={NEW: 5000})),
        "objective": None,
        "guardrails": (flights_design().guardrails[1],),
        "outcome_window_s": 0.0,
        "maximum_duration_s": None,
        "covariate": None,
        "meaning": None,
        "digests": {OLD: "sha256:a", NEW: "sha256:b"},
    }
    return flights_design(**(usual | changed))


def seen(errors: tuple[float, float], phase: int) -> Report:
    """Return what is said of arms with these shares of errors."""
    shares = (0.9, 0.1) if phase == 0 else (0.5, 0.5)
    arms = {}
    for arm, part, share in zip((OLD, NEW), shares, errors, strict=True):
        units = round(100_000 * part)
        failed = round(units * share)
        sums = Sums.of([1.0] * units, [1.0] * failed + [0.0] * (units - failed))
        arms[arm] = ArmEvidence(units=units, first_exposures=units, requests=units, metrics={"error": sums})
    design = canary()
    evidence = Evidence(salt=design.salt, phases=(PhaseEvidence(number=phase, started_us=phase * HOUR_US, arms=arms),))
    return analyse(design, evidence, phase=phase, now_us=(phase + 1) * HOUR_US)


@pytest.mark.parametrize("phase", [0, 1])
def test_guardrails_alone_are_judged_in_every_step(phase: int) -> None:
    good, bad = seen((0.001, 0.001), phase), seen((0.001, 0.05), phase)
    assert (bad.verdict, bad.reason) == (Verdict.FAIL, Reason.GUARDRAIL_BREACHED)
    assert good.verdict in {Verdict.PASS, Verdict.INSUFFICIENT}
    assert "objective" not in good.message
    assert {one.treatment for one in good.metrics} == {NEW}


def test_a_canary_is_known_by_what_it_is_named_after() -> None:
    assert canary().is_canary
    assert len(f"{'n' * 63}/{'d' * 34}/{canary_id('r' * 46, 9_999_999_999)}") <= 160
    others = {
        "treatments": (NEW, "other"),
        "control": "logistic",
        "salt": "flights/arrival-delay/e1",
    }
    for field, value in others.items():
        assert not canary(**{field: value}).is_canary, field
    assert not flights_design(salt="flights/arrival-delay/boosted-2").is_canary


def test_its_words_are_those_of_a_canary() -> None:
    design = canary()
    breach = {"error": Findings(Finding.BREACHED)}
    said = flights_report(Verdict.FAIL, Reason.GUARDRAIL_BREACHED, design=design, phase=0, metrics=breach)
    assert words.headline(said, design).startswith(f"{NEW} breaks a guardrail: error")
    assert not any("objective" in one for one in words.not_meant(said))
    still = flights_report(Verdict.INSUFFICIENT, Reason.TOO_FEW_EFFECTIVE_UNITS, design=design)
    assert words.headline(still, design).startswith("No guardrail is breached")
    assert "the canary goes on" in words.not_decided(design, still, has_ended=False)
    promoted = Decision(action=Action.PROMOTE, reason="StepsCompleted", winner=NEW, phase=1, at_us=0)
    assert words.decided(promoted, design) == f"{NEW} was promoted and takes over from {OLD}. (Steps completed)"
