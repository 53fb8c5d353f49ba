"""The policy: which evidence makes which verdict, and why."""

from __future__ import annotations

import numpy as np
import pytest

from fairlead.experiment.analysis import analyse
from fairlead.experiment.design import Design, Guardrail, Objective, Scale
from fairlead.experiment.errors import UnfitDesign, UnfitEvidence
from fairlead.experiment.evidence import ArmEvidence, Evidence, FirstValues, PhaseEvidence, Sums
from fairlead.experiment.report import Finding, Method, Reason, Report, Role, Verdict
from support.experiment_worlds import (
    BRIER,
    CLICKS,
    ERROR,
    HOUR_US,
    LATENCY,
    SALT,
    START_US,
    Arm,
    absolute,
    arm_evidence,
    design_of,
    evidence_of,
    relative,
    two,
)


def look(design: Design, evidence: Evidence, *, phase: int = 1, hours: float = 10) -> Report:
    return analyse(design, evidence, phase=phase, now_us=START_US + int(hours * HOUR_US))


def said(report: Report) -> tuple[Verdict, Reason]:
    return report.verdict, report.reason


def evidence_with(name: str, **more: object) -> Evidence:
    """Return the usual evidence, in which one arm is different."""
    evidence = evidence_of(two())
    arms = {**evidence.phases[0].arms}
    arms[name] = arms[name].model_copy(update=more)
    return Evidence(salt=SALT, phases=(evidence.phases[0].model_copy(update={"arms": arms}),))


# -- Pass


def test_better_and_no_guardrail_worse_passes() -> None:
    report = look(design_of(), evidence_of(two(treatment=Arm(brier=0.18, seed=2))))
    assert said(report) == (Verdict.PASS, Reason.SUPERIOR)
    assert report.winner == "boosted"
    (objective,) = report.of("boosted", Role.OBJECTIVE)
    assert objective.relative is not None
    assert objective.relative.low is not None
    assert objective.relative.high is not None
    assert objective.relative.low < -0.1 < objective.relative.high < 0
    assert objective.p_value is not None
    assert objective.p_value < 0.05
    assert [one.finding for one in report.of("boosted", Role.GUARDRAIL)] == [Finding.NON_INFERIOR] * 2


def test_without_an_objective_guardrails_alone_decide() -> None:
    report = look(design_of(objective=None), evidence_of(two()))
    assert said(report) == (Verdict.PASS, Reason.NON_INFERIOR)
    assert report.winner == "boosted"
    assert "guardrails" in report.estimand


def test_before_the_last_phase_nobody_wins() -> None:
    report = look(design_of(steps=(5000, 5000)), evidence_of(two(treatment=Arm(brier=0.15, seed=2)), phase=0), phase=0)
    assert said(report) == (Verdict.PASS, Reason.NON_INFERIOR)
    assert (report.winner, report.is_final) == (None, False)


def test_the_best_of_several_treatments_wins() -> None:
    design = design_of(treatments=("forest", "boosted"), steps=(6666,))
    arms = {"logistic": Arm(), "boosted": Arm(brier=0.16, seed=2), "forest": Arm(brier=0.18, seed=3)}
    report = look(design, evidence_of(arms, phase=0), phase=0)
    assert said(report) == (Verdict.PASS, Reason.SUPERIOR)
    assert report.winner == "boosted"
    assert {one.alpha for one in report.metrics if one.role is Role.OBJECTIVE} == {0.025}


def test_a_metric_that_is_better_when_higher_is_read_so() -> None:
    objective = Objective(metric=CLICKS, minimum_effect=relative(0.05))
    design = design_of(objective=objective, guardrails=())
    n = np.ones(20_000)
    rng = np.random.Generator(np.random.Philox(4))
    control, treatment = (
        arm_evidence(Arm(units=20_000)).model_copy(update={"metrics": {"clicks": Sums.of(n, rng.random(20_000) < p)}})
        for p in (0.2, 0.23)
    )
    for arms, expected in (
        ((control, treatment), (Verdict.PASS, Reason.SUPERIOR)),
        ((treatment, control), (Verdict.FAIL, Reason.HARMFUL)),
    ):
        seen = dict(zip(("logistic", "boosted"), arms, strict=True))
        phase = PhaseEvidence(number=1, started_us=START_US, arms=seen)
        assert said(look(design, Evidence(salt=SALT, phases=(phase,)))) == expected


# -- Fail


def test_worse_in_the_objective_fails() -> None:
    report = look(design_of(), evidence_of(two(treatment=Arm(brier=0.23, seed=2))))
    assert said(report) == (Verdict.FAIL, Reason.HARMFUL)
    assert report.winner is None


def test_the_objective_is_not_judged_before_the_last_phase() -> None:
    design = design_of(steps=(5000, 5000))
    report = look(design, evidence_of(two(treatment=Arm(brier=0.3, seed=2)), phase=0), phase=0)
    assert report.verdict is Verdict.PASS


@pytest.mark.parametrize("phase", [0, 1])
def test_a_breached_guardrail_fails_at_once_in_any_phase(phase: int) -> None:
    design = design_of(steps=(5000, 5000))
    report = look(design, evidence_of(two(treatment=Arm(latency_ms=25.0, brier=0.1, seed=2)), phase=phase), phase=phase)
    assert said(report) == (Verdict.FAIL, Reason.GUARDRAIL_BREACHED)
    assert "latency_ms" in report.message


def test_errors_of_a_few_units_are_found_without_a_normal_approximation() -> None:
    """Control has none: the gate stays shut, and the exact test speaks."""
    control, treatment = Arm(units=1200, error=0.0), Arm(units=1200, error=0.05, seed=2)
    report = look(design_of(), evidence_of(two(control, treatment)))
    assert said(report) == (Verdict.FAIL, Reason.GUARDRAIL_BREACHED)
    found = report.of("boosted", Role.GUARDRAIL)[1]
    assert (found.metric, found.method, found.gate.is_open) == ("error", Method.FIRST_VALUES, False)


def test_an_effect_too_small_to_matter_fails() -> None:
    design = design_of(objective=Objective(metric=BRIER, minimum_effect=relative(0.1)), guardrails=())
    report = look(design, evidence_of(two(Arm(units=20_000), Arm(units=20_000, seed=2))))
    assert said(report) == (Verdict.FAIL, Reason.NO_WORTHWHILE_EFFECT)


def test_a_harm_within_the_margin_is_none() -> None:
    guardrails = (Guardrail(metric=LATENCY, margin=relative(0.2)),)
    arms = two(Arm(units=20_000), Arm(units=20_000, latency_ms=5.4, brier=0.17, seed=2))
    assert said(look(design_of(guardrails=guardrails), evidence_of(arms))) == (Verdict.PASS, Reason.SUPERIOR)


def test_several_treatments_fail_only_together() -> None:
    objective = Objective(metric=BRIER, minimum_effect=relative(0.05))
    design = design_of(treatments=("boosted", "forest"), steps=(6666,), objective=objective, guardrails=())
    worse, fewer = Arm(brier=0.24, seed=2), Arm(units=200, first_exposures=4000, seed=3)
    report = look(design, evidence_of({"logistic": Arm(), "boosted": worse, "forest": fewer}, phase=0), phase=0)
    assert report.verdict is Verdict.INSUFFICIENT
    both = look(
        design, evidence_of({"logistic": Arm(), "boosted": worse, "forest": Arm(brier=0.25, seed=3)}, phase=0), phase=0
    )
    assert said(both) == (Verdict.FAIL, Reason.HARMFUL)


# -- Insufficient


def test_below_the_gate_nothing_is_said_of_the_objective() -> None:
    report = look(design_of(), evidence_of(two(Arm(units=60), Arm(units=60, brier=0.1, seed=2))))
    assert said(report) == (Verdict.INSUFFICIENT, Reason.TOO_FEW_EFFECTIVE_UNITS)
    (objective,) = report.of("boosted", Role.OBJECTIVE)
    assert (objective.finding, objective.relative, objective.absolute) == (Finding.GATED, None, None)
    assert objective.point(report.at_us).low is None


def test_an_interval_that_allows_for_both_decides_nothing() -> None:
    report = look(design_of(), evidence_of(two(Arm(units=600), Arm(units=600, seed=2))))
    assert said(report) == (Verdict.INSUFFICIENT, Reason.TOO_FEW_EFFECTIVE_UNITS)


def test_while_no_outcome_is_old_enough_it_is_not_mature() -> None:
    bare = arm_evidence(Arm()).model_copy(update={"matured_units": 0, "labelled_units": 0, "metrics": {}})
    phase = PhaseEvidence(number=1, started_us=START_US, arms={"logistic": bare, "boosted": bare})
    report = look(design_of(guardrails=()), Evidence(salt=SALT, phases=(phase,)))
    assert said(report) == (Verdict.INSUFFICIENT, Reason.NOT_YET_MATURE)
    assert report.label_coverage is None


def test_a_step_with_nothing_to_judge_says_so() -> None:
    report = look(design_of(steps=(5000, 5000), guardrails=()), evidence_of(two(), phase=0), phase=0)
    assert said(report) == (Verdict.INSUFFICIENT, Reason.NOT_YET_MATURE)
    assert "waits for the last one" in report.message


def test_at_the_maximum_duration_an_open_question_stays_open() -> None:
    design = design_of(maximum_duration_s=3600.0)
    evidence = evidence_of(two(Arm(units=600), Arm(units=600, seed=2)))
    assert said(look(design, evidence, hours=1.0)) == (Verdict.INSUFFICIENT, Reason.HORIZON_REACHED)
    assert look(design, evidence, hours=0.9).reason is Reason.TOO_FEW_EFFECTIVE_UNITS


def test_superior_and_a_guardrail_open_at_the_end_is_not_a_pass() -> None:
    guardrails = (Guardrail(metric=LATENCY, margin=relative(0.001)),)
    design = design_of(guardrails=guardrails, maximum_duration_s=60.0)
    report = look(design, evidence_of(two(treatment=Arm(brier=0.17, seed=2))))
    assert said(report) == (Verdict.INSUFFICIENT, Reason.HORIZON_REACHED)
    assert "latency_ms" in report.message


# -- NoData


@pytest.mark.parametrize("source", ["exposures", "outcomes", "gateway"])
def test_a_source_that_is_down_decides_nothing(source: str) -> None:
    report = look(design_of(), evidence_of(two(treatment=Arm(brier=0.17, seed=2)), down=(source,)))
    assert said(report) == (Verdict.NO_DATA, Reason.SOURCE_DOWN)
    assert source in report.message
    assert report.winner is None


def test_outcomes_may_be_down_where_none_are_needed() -> None:
    design = design_of(objective=None, guardrails=(Guardrail(metric=LATENCY, margin=relative(0.1)),))
    assert look(design, evidence_of(two(), down=("outcomes",))).verdict is Verdict.PASS


def test_a_breach_counted_at_the_route_does_not_wait_for_outcomes() -> None:
    evidence = evidence_of(two(treatment=Arm(latency_ms=25.0, seed=2)), down=("outcomes",))
    assert look(design_of(), evidence).reason is Reason.GUARDRAIL_BREACHED
    silent = evidence_of(two(treatment=Arm(latency_ms=25.0, seed=2)), down=("exposures",))
    assert look(design_of(), silent).reason is Reason.SOURCE_DOWN


def test_nobody_exposed_is_no_data() -> None:
    phase = PhaseEvidence(number=1, started_us=START_US, arms={})
    assert said(look(design_of(), Evidence(salt=SALT, phases=(phase,)))) == (Verdict.NO_DATA, Reason.NOT_YET_MATURE)


def test_not_one_outcome_of_many_units_is_a_dead_source() -> None:
    report = look(design_of(), evidence_of(two(Arm(labelled=0.0), Arm(labelled=0.0, seed=2))))
    assert said(report) == (Verdict.NO_DATA, Reason.SOURCE_DOWN)
    assert "does the application post any" in report.message


# -- Invalid


def test_lost_units_make_the_comparison_invalid() -> None:
    arms = two(treatment=Arm(brier=0.17, seed=2, first_exposures=3500))
    report = look(design_of(), evidence_of(arms))
    assert said(report) == (Verdict.INVALID, Reason.SAMPLE_RATIO)
    assert report.sample_ratio.is_broken
    assert report.winner is None


def test_lost_outcomes_make_the_comparison_invalid() -> None:
    report = look(design_of(), evidence_of(two(treatment=Arm(brier=0.17, labelled=0.9, seed=2))))
    assert said(report) == (Verdict.INVALID, Reason.LABEL_COVERAGE)
    assert report.label_coverage is not None
    assert report.label_coverage.log_e > report.label_coverage.log_alarm


def test_outcomes_that_miss_alike_do_no_harm() -> None:
    report = look(design_of(), evidence_of(two(Arm(labelled=0.7), Arm(brier=0.17, labelled=0.7, seed=2))))
    assert said(report) == (Verdict.PASS, Reason.SUPERIOR)


def test_requests_that_lose_their_outcomes_are_found_though_each_unit_has_one() -> None:
    n = np.full(4000, 10.0)
    rng = np.random.Generator(np.random.Philox(4))
    arms = {}
    for name, share in (("logistic", 0.9), ("boosted", 0.8)):
        seen = arm_evidence(Arm(seed=len(name)))
        arms[name] = seen.model_copy(update={"coverage": Sums.of(n, rng.binomial(10, share, 4000))})
    phase = PhaseEvidence(number=1, started_us=START_US, arms=arms)
    report = look(design_of(), Evidence(salt=SALT, phases=(phase,)))
    assert said(report) == (Verdict.INVALID, Reason.LABEL_COVERAGE)


def test_users_that_come_more_often_have_lost_no_outcomes() -> None:
    """More of them have an outcome at all, though each request has one as often as in control."""
    rng = np.random.Generator(np.random.Philox(4))
    arms = {}
    for name, often in (("logistic", 2.0), ("boosted", 3.0)):
        n = 1.0 + rng.poisson(often, 8000)
        labelled = rng.binomial(n.astype(np.int64), 0.5)
        seen = arm_evidence(Arm(units=8000, brier=0.2 if name == "logistic" else 0.17, seed=len(name)))
        told = {"coverage": Sums.of(n, labelled), "labelled_units": int((labelled > 0).sum())}
        arms[name] = seen.model_copy(update=told)
    phase = PhaseEvidence(number=1, started_us=START_US, arms=arms)
    assert arms["boosted"].labelled_units > 1.05 * arms["logistic"].labelled_units
    assert look(design_of(), Evidence(salt=SALT, phases=(phase,))).verdict is Verdict.PASS


def test_a_breach_at_the_route_outweighs_lost_units() -> None:
    """A treatment that crashes loses its exposures, too; it is to be rolled back, not held."""
    arms = two(Arm(error=0.0), Arm(error=0.1, seed=2, first_exposures=3500))
    assert said(look(design_of(), evidence_of(arms))) == (Verdict.FAIL, Reason.GUARDRAIL_BREACHED)


def test_a_breach_by_outcomes_does_not_outweigh_lost_units() -> None:
    design = design_of(objective=None, guardrails=(Guardrail(metric=BRIER, margin=relative(0.05)),))
    assert look(design, evidence_of(two(treatment=Arm(brier=0.3, seed=2)))).reason is Reason.GUARDRAIL_BREACHED
    lost = evidence_of(two(treatment=Arm(brier=0.3, seed=2, first_exposures=3500)))
    assert look(design, lost).reason is Reason.SAMPLE_RATIO


def test_the_ratio_is_that_of_all_steps_until_now_each_by_its_own_shares() -> None:
    first = PhaseEvidence(
        number=0,
        started_us=START_US,
        arms={"logistic": ArmEvidence(first_exposures=9000), "boosted": ArmEvidence(first_exposures=1000)},
    )
    second = evidence_of(two(treatment=Arm(brier=0.17, seed=2))).phases[0]
    fine = look(design_of(), Evidence(salt=SALT, phases=(first, second)))
    assert fine.verdict is Verdict.PASS
    lost = first.model_copy(update={"arms": {**first.arms, "boosted": ArmEvidence(first_exposures=600)}})
    assert look(design_of(), Evidence(salt=SALT, phases=(lost, second))).reason is Reason.SAMPLE_RATIO


# -- what else a report tells


def test_blocks_that_shake_more_than_units_widen_the_interval() -> None:
    calm = evidence_of(two(treatment=Arm(latency_ms=5.3, seed=2)))
    rng = np.random.Generator(np.random.Philox(8))
    blocks = Sums.of(np.full(300, 70.0), 70 * (5 + 10 * (rng.random(300) < 0.3)))
    arms = {
        name: arm.model_copy(update={"blocks": {"latency_ms": (blocks,)}}) for name, arm in calm.phases[0].arms.items()
    }
    shaken = Evidence(salt=SALT, phases=(calm.phases[0].model_copy(update={"arms": arms}),))
    by_unit, by_block = (look(design_of(), one).of("boosted", Role.GUARDRAIL)[0] for one in (calm, shaken))
    assert (by_unit.method, by_block.method) == (Method.UNITS, Method.BLOCKS)
    assert by_unit.relative is not None
    assert by_block.relative is not None
    assert (by_block.relative.high or 0) > (by_unit.relative.high or 0)


def test_a_covariate_narrows_the_interval_and_says_so() -> None:
    rng = np.random.Generator(np.random.Philox(8))
    arms = {}
    for name, level in (("logistic", 0.2), ("boosted", 0.19)):
        n = 1.0 + rng.geometric(0.3, 3000)
        known = rng.normal(size=3000)
        x = n * (level + 0.05 * known + 0.02 * rng.normal(size=3000))
        plain = arm_evidence(Arm(units=3000))
        arms[name] = plain.model_copy(update={"metrics": {**plain.metrics, "brier": Sums.of(n, x, known)}})
    evidence = Evidence(salt=SALT, phases=(PhaseEvidence(number=1, started_us=START_US, arms=arms),))
    without, with_it = (
        look(design_of(covariate=one), evidence).of("boosted", Role.OBJECTIVE)[0] for one in (None, "delay:mean_7d")
    )
    assert (without.covariate, with_it.covariate) == (None, "delay:mean_7d")
    assert with_it.variance_ratio is not None
    assert with_it.variance_ratio < 0.7
    assert with_it.treatment_value == without.treatment_value


def test_activity_that_differs_is_told_and_decides_nothing() -> None:
    report = look(design_of(), evidence_of(two(treatment=Arm(brier=0.17, requests=8.0, seed=2))))
    (activity,) = report.of("boosted", Role.ACTIVITY)
    assert activity.finding is Finding.DIFFERENT
    assert report.verdict is Verdict.PASS


def test_the_plan_says_what_it_takes() -> None:
    report = look(design_of(maximum_duration_s=86_400.0), evidence_of(two()), hours=10)
    plan = report.plan
    assert plan.planned_units is not None
    assert plan.planned_s == pytest.approx(36_000 * plan.planned_units / plan.seen_units)
    assert (plan.seen_units, plan.maximum_s) == (8000, 86_400.0)


def test_arms_are_told_with_what_is_missing() -> None:
    evidence = evidence_with("boosted", left_out={"override": 3}, labelled_requests=10, pending_requests=4)
    arm = look(design_of(), evidence).arms[1]
    assert (arm.variant, arm.target, arm.left_out) == ("boosted", 0.5, {"override": 3})
    assert arm.missing_requests == arm.matured_requests - 10
    assert arm.share == pytest.approx(0.5)


def test_a_report_survives_json() -> None:
    report = look(design_of(), evidence_of(two()))
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_another_unit_of_measure_changes_no_verdict() -> None:
    evidence = evidence_of(two(treatment=Arm(brier=0.19, seed=2)))
    arms = evidence.phases[0].arms

    def scaled(sums: Sums, unit: float) -> Sums:
        powers = {"x": 1, "dn": 1, "dd": 2, "dn3": 1, "d2n2": 2, "d3n": 3, "d4": 4}
        return sums.model_copy(update={name: getattr(sums, name) * unit**k for name, k in powers.items()})

    thousandfold = {
        name: arm.model_copy(
            update={"metrics": {**arm.metrics, "latency_ms": scaled(arm.metrics["latency_ms"], 1000.0)}}
        )
        for name, arm in arms.items()
    }
    other = Evidence(salt=SALT, phases=(evidence.phases[0].model_copy(update={"arms": thousandfold}),))
    plain, big = (look(design_of(), one).of("boosted", Role.GUARDRAIL)[0] for one in (evidence, other))
    assert plain.relative is not None
    assert big.relative is not None
    assert big.relative.high == pytest.approx(plain.relative.high)
    assert big.log_e_safe == pytest.approx(plain.log_e_safe)


def test_other_names_of_treatments_change_nothing_else() -> None:
    design = design_of(treatments=("boosted", "forest"), steps=(6666,))
    arms = {"logistic": Arm(), "boosted": Arm(brier=0.19, seed=2), "forest": Arm(brier=0.18, seed=3)}
    swapped = {"logistic": arms["logistic"], "boosted": arms["forest"], "forest": arms["boosted"]}
    one, two_ = (look(design, evidence_of(each, phase=0), phase=0) for each in (arms, swapped))
    assert said(one) == said(two_)
    assert one.of("boosted", Role.OBJECTIVE)[0].relative == two_.of("forest", Role.OBJECTIVE)[0].relative
    assert one.sample_ratio.log_e == pytest.approx(two_.sample_ratio.log_e)


# -- hostile evidence


def test_without_variance_nothing_is_claimed() -> None:
    constant = Sums.of(np.ones(5000), np.full(5000, 0.2))
    evidence = evidence_of(two())
    arms = {
        name: arm.model_copy(update={"metrics": {"brier": constant}}) for name, arm in evidence.phases[0].arms.items()
    }
    report = look(
        design_of(guardrails=()), Evidence(salt=SALT, phases=(evidence.phases[0].model_copy(update={"arms": arms}),))
    )
    assert said(report) == (Verdict.INSUFFICIENT, Reason.TOO_FEW_EFFECTIVE_UNITS)


@pytest.mark.parametrize("units", [0, 1])
def test_hardly_anybody_is_no_failure(units: int) -> None:
    lonely = ArmEvidence(
        first_exposures=units,
        units=units,
        matured_units=units,
        labelled_units=units,
        metrics={"brier": Sums.of(np.ones(units), np.full(units, 0.2))},
        first_values={"error": FirstValues(units=units, total=0.0)},
    )
    phase = PhaseEvidence(number=1, started_us=START_US, arms={"logistic": lonely, "boosted": lonely})
    report = look(design_of(), Evidence(salt=SALT, phases=(phase,)))
    assert report.verdict in {Verdict.INSUFFICIENT, Verdict.NO_DATA}
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_a_relative_effect_of_a_metric_around_zero_is_never_claimed() -> None:
    rng = np.random.Generator(np.random.Philox(8))
    around = {name: Sums.of(np.ones(5000), rng.normal(-1.0, 1.0, 5000)) for name in ("logistic", "boosted")}
    evidence = evidence_of(two())
    arms = {
        name: arm.model_copy(update={"metrics": {"brier": around[name]}})
        for name, arm in evidence.phases[0].arms.items()
    }
    phases = (evidence.phases[0].model_copy(update={"arms": arms}),)
    report = look(design_of(guardrails=()), Evidence(salt=SALT, phases=phases))
    assert report.verdict is Verdict.INSUFFICIENT
    absolute_one = Objective(metric=BRIER, minimum_effect=absolute(0.2))
    report = look(design_of(objective=absolute_one, guardrails=()), Evidence(salt=SALT, phases=phases))
    (found,) = report.of("boosted", Role.OBJECTIVE)
    assert found.scale is Scale.ABSOLUTE
    assert found.absolute is not None
    assert found.relative is None


def test_evidence_of_something_else_is_refused() -> None:
    evidence = evidence_of(two())
    with pytest.raises(UnfitEvidence, match="another experiment"):
        look(design_of(salt="flights/arrival-delay/e2"), evidence)
    with pytest.raises(UnfitEvidence, match="has not begun"):
        look(design_of(), evidence, phase=0)
    with pytest.raises(UnfitEvidence, match="not in the design"):
        look(design_of(steps=(1000,)), evidence)
    with pytest.raises(UnfitEvidence, match="no arm forest"):
        look(design_of(), evidence_of({**two(), "forest": Arm(units=5)}))
    with pytest.raises(UnfitDesign):
        look(design_of(objective=None, guardrails=()), evidence)


def test_a_lower_alpha_widens_the_interval() -> None:
    evidence = evidence_of(two())
    wide, narrow = (look(design_of(alpha=alpha), evidence).of("boosted", Role.OBJECTIVE)[0] for alpha in (0.01, 0.2))
    assert wide.relative is not None
    assert narrow.relative is not None
    assert (wide.relative.high or 0) > (narrow.relative.high or 0)


def test_a_guardrail_of_a_share_that_is_better_when_higher() -> None:
    """One value per unit: fewer clicks are worse."""
    guardrails = (Guardrail(metric=CLICKS, margin=relative(0.1)),)
    design = design_of(objective=None, guardrails=guardrails)

    def evidence(control: float, treatment: float) -> Evidence:
        arms = {
            name: ArmEvidence(
                first_exposures=5000,
                units=5000,
                matured_units=5000,
                labelled_units=5000,
                first_values={"clicks": FirstValues(units=5000, total=share * 5000)},
            )
            for name, share in (("logistic", control), ("boosted", treatment))
        }
        return Evidence(salt=SALT, phases=(PhaseEvidence(number=1, started_us=START_US, arms=arms),))

    assert look(design, evidence(0.5, 0.39)).reason is Reason.GUARDRAIL_BREACHED
    assert look(design, evidence(0.5, 0.51)).reason is Reason.NON_INFERIOR
    assert look(design, evidence(0.5, 0.46)).reason is Reason.TOO_FEW_EFFECTIVE_UNITS


def test_the_alarm_shares_its_alpha_over_guardrails_and_phases() -> None:
    report = look(design_of(guardrails=(Guardrail(metric=LATENCY, margin=relative(0.1)),)), evidence_of(two()))
    (one,) = report.of("boosted", Role.GUARDRAIL)
    assert one.log_e_alarm == pytest.approx(np.log(2 / 0.05))
    assert one.log_e_needed == pytest.approx(np.log(1 / 0.05))
    both = look(design_of(), evidence_of(two())).of("boosted", Role.GUARDRAIL)
    assert both[0].log_e_alarm == pytest.approx(np.log(4 / 0.05))
    assert both[1].metric == ERROR.name
    assert both[1].log_e_alarm == pytest.approx(np.log(8 / 0.05))
