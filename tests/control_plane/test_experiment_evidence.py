"""What evidence does to a rollout, and what it never does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.experiment.report import Reason as Why
from fairlead.experiment.report import Report, Verdict
from fairlead_operator.api.conditions import Condition, ConditionType, Reason
from fairlead_operator.api.v1alpha1 import Status
from fairlead_operator.core.desired import Desired
from fairlead_operator.core.evidence import NO_EVIDENCE, Evidence, Trouble
from fairlead_operator.core.observed import Health
from fairlead_operator.core.record import Recorded, State, dumped, loaded
from fairlead_operator.core.status import Surroundings, status_of
from support.reports import flights_report
from support.world import World, deployment, desired, experiment, steps

MINUTE = 60.0
SALT = "flights/arrival-delay/e1"
BLOCK: dict[str, Any] = {
    "id": "e1",
    "objective": {"metric": "brier", "minimumEffect": "5%"},
    "guardrails": [{"metric": "latency_ms", "margin": "10%"}, {"metric": "error", "margin": "0.1pp"}],
    "outcomeWindow": "24h",
    "maximumDuration": "14d",
}
RAMP = steps(({"boosted": 10}, "10m"), ({"boosted": 50}, None))
DEAD = Trouble(Reason.LEDGER_UNREACHABLE, "the ledger does not answer")
UNDECIDED = [
    (Verdict.NO_DATA, Why.NOT_YET_MATURE),
    (Verdict.NO_DATA, Why.SOURCE_DOWN),
    (Verdict.INVALID, Why.SAMPLE_RATIO),
    (Verdict.INVALID, Why.LABEL_COVERAGE),
]
"""Verdicts that decide nothing, whenever and however often they come."""


def judged(**rollout: Any) -> Desired:
    """Return what an experiment asks for that says how it is judged."""
    return experiment(RAMP, named=BLOCK, rollout=rollout)


def report(verdict: Verdict, reason: Why, phase: int, wanted: Desired | None = None) -> Report:
    return flights_report(verdict, reason, phase=phase, design=(wanted or judged()).design)


def known(*reports: Report, trouble: Trouble | None = None, wanted: Desired | None = None) -> Evidence:
    """Return what is known of a registered experiment."""
    design = (wanted or judged()).design
    assert design is not None
    return Evidence(design.digest, {one.phase: one for one in reports}, trouble)


WAITING = (Verdict.INSUFFICIENT, Why.TOO_FEW_EFFECTIVE_UNITS)


def ramping(wanted: Desired | None = None) -> World:
    """Return a world whose experiment has its first step's weights in force."""
    wanted = wanted or judged()
    world = World()
    world.evidence = known(report(*WAITING, 0), wanted=wanted)
    for _ in range(3):
        world.look(wanted, 4)
        world.become(Health.READY)
    assert (world.state, world.weight("boosted")) == (State.RAMPING, 10)
    return world


def deciding(wanted: Desired | None = None) -> World:
    """Return a world whose experiment waits for a decision in its last step."""
    wanted = wanted or judged()
    world = ramping(wanted)
    world.wait(11 * MINUTE)
    world.evidence = known(report(*WAITING, 0), report(*WAITING, 1), wanted=wanted)
    for _ in range(3):
        world.look(wanted)
        world.become(Health.READY)
    assert (world.state, world.weight("boosted")) == (State.DECIDING, 50)
    return world


def finish(world: World, wanted: Desired) -> None:
    for _ in range(4):
        world.look(wanted)
        world.become(Health.READY)
    assert world.is_at(State.STABLE), world.record.run


def observed(world: World) -> bool:
    """Return whether units are told of the experiment."""
    return world.route is not None and world.route.observation is not None


def condition(world: World, wanted: Desired) -> Condition:
    kinds = {one.type: one for one in status(world, wanted).conditions}
    return kinds[ConditionType.EXPERIMENT_HEALTHY]


def status(world: World, wanted: Desired) -> Status:
    around = Surroundings(None, world.now_s, evidence=world.evidence or NO_EVIDENCE)
    return status_of(deployment(experiment=BLOCK), wanted, world.observed, world.record, around)


def untold(world: World) -> list[tuple[str, str, int]]:
    return [(one.salt, one.decision.verdict, one.decision.phase) for one in world.record.untold]


def test_nobody_is_exposed_before_the_ledger_has_the_design() -> None:
    world, wanted = World(), judged()
    world.evidence = Evidence(trouble=DEAD)
    for _ in range(4):
        world.look(wanted)
        world.become(Health.READY)
        world.wait(30 * MINUTE)
    assert (world.state, world.weight("boosted")) == (State.DEPLOYING, 0)
    assert condition(world, wanted).reason is Reason.LEDGER_UNREACHABLE
    world.evidence = known()
    world.look(wanted)
    assert (world.state, world.weight("boosted")) == (State.RAMPING, 10)


def tell(world: World, variant: str) -> None:
    """Have a variant's servers read what they are told of feedback."""
    for name, server in world.servers.items():
        if server.variant == variant:
            world.servers[name] = dataclasses.replace(server, informed=True)


def untell(world: World) -> None:
    """Have no server have read it yet."""
    for name, server in world.servers.items():
        world.servers[name] = dataclasses.replace(server, informed=False)


def test_no_unit_is_exposed_before_the_servers_of_every_arm_count_units() -> None:
    world, wanted = World(), judged()
    world.evidence = known()
    world.look(wanted)
    world.become(Health.READY)
    untell(world)
    for variant in ("boosted", "logistic"):
        world.look(wanted)
        world.wait(30 * MINUTE)
        assert (world.state, world.weight("boosted"), observed(world)) == (State.DEPLOYING, 0, False)
        assert "every server to know where its ledger is" in progress(world, wanted)
        tell(world, variant)
    world.look(wanted)
    assert (world.state, world.weight("boosted"), observed(world)) == (State.RAMPING, 10, True)


def test_an_observed_split_begins_to_be_observed_in_every_arm_at_once() -> None:
    world, wanted = World(), desired(experiment=BLOCK, routing={"unit": {}})
    world.evidence = known(wanted=wanted)
    world.look(wanted)
    world.become(Health.READY)
    untell(world)
    tell(world, "boosted")
    world.look(wanted)
    assert (world.weight("boosted"), observed(world)) == (50, False)
    tell(world, "logistic")
    world.look(wanted)
    assert observed(world)


def test_a_server_that_comes_later_does_not_end_what_is_observed() -> None:
    world, wanted = ramping(), judged()
    assert observed(world)
    untell(world)  # a pod more, whose report was not read yet
    world.look(wanted)
    assert observed(world)


def progress(world: World, wanted: Desired) -> str:
    conditions = {one.type: one for one in status(world, wanted).conditions}
    return conditions[ConditionType.PROGRESSING].message


def test_an_observed_experiment_has_its_weight_and_is_told_to_nobody_before_it_is_registered() -> None:
    wanted = desired(experiment=BLOCK, routing={"unit": {}})
    world = World()
    world.evidence = Evidence(trouble=DEAD)
    world.settle(wanted)
    assert world.weight("boosted") == 50
    assert not observed(world)
    world.evidence = known(report(Verdict.PASS, Why.SUPERIOR, 0, wanted), wanted=wanted)
    world.settle(wanted)
    assert observed(world)
    assert world.weight("boosted") == 50  # a verdict moves nothing under Manual
    told = status(world, wanted)
    assert told.experiment is not None
    assert (told.experiment.verdict, told.rollout.verdict) == ("Pass", "Pass (Superior)")


@pytest.mark.parametrize(("later", "changed"), [({**BLOCK, "id": "e2"}, "id"), (None, "block"), ({"id": "e1"}, "what")])
def test_the_end_of_an_observed_experiment_is_told_once(later: dict[str, Any] | None, changed: str) -> None:
    world, wanted = World(), desired(experiment=BLOCK, routing={"unit": {}})
    world.evidence = known(wanted=wanted)
    world.settle(wanted)
    assert untold(world) == []
    world.evidence = NO_EVIDENCE
    for _ in range(3):
        world.settle(desired(experiment=later, routing={"unit": {}}))
        assert untold(world) == [(SALT, "End", 0)], changed
    assert loaded(dumped(world.record)) == world.record
    world.evidence = Evidence(told={SALT: None})
    world.settle(desired(experiment=later, routing={"unit": {}}))
    assert untold(world) == []


def test_the_end_of_a_decided_experiment_is_not_told_again() -> None:
    world, wanted = deciding(), judged()
    world.evidence = known(report(Verdict.FAIL, Why.HARMFUL, 1))
    finish(world, wanted)
    world.evidence = dataclasses.replace(known(), told={SALT: None})
    world.settle(wanted)
    assert untold(world) == []
    world.evidence = NO_EVIDENCE
    world.settle(desired(experiment=None, routing={"unit": {}}))
    assert (untold(world), world.record.registered) == ([], None)


def test_a_design_that_was_registered_stays_so_whoever_forgets_it() -> None:
    world, wanted = ramping(), judged()
    world.evidence = Evidence(trouble=DEAD)
    world.look(wanted)
    assert world.weight("boosted") == 10
    assert loaded(dumped(world.record)) == world.record


@pytest.mark.parametrize("at", [ramping, deciding])
def test_a_breached_guardrail_rolls_back_at_once_in_any_step(at: Callable[[], World]) -> None:
    world, wanted = at(), judged()
    assert world.record.run is not None
    world.evidence = known(report(Verdict.FAIL, Why.GUARDRAIL_BREACHED, world.record.run.step))
    world.look(wanted)
    assert world.weight("boosted") == 0
    finish(world, wanted)
    decision = world.record.run.decision
    assert decision is not None
    assert (decision.verdict, decision.reason, decision.analysis) == ("Rollback", Why.GUARDRAIL_BREACHED, "Fail")


def test_a_guardrail_of_an_earlier_step_that_is_seen_late_rolls_back_too() -> None:
    world, wanted = deciding(), judged()
    world.evidence = known(report(Verdict.FAIL, Why.GUARDRAIL_BREACHED, 0), report(*WAITING, 1))
    finish(world, wanted)
    assert world.record.run is not None
    assert world.record.run.decision is not None
    assert (world.record.run.decision.verdict, world.record.run.decision.phase) == ("Rollback", 0)


@pytest.mark.parametrize("reason", [Why.NO_WORTHWHILE_EFFECT, Why.HARMFUL])
def test_an_objective_that_is_missed_ends_the_experiment_in_its_last_step_alone(reason: Why) -> None:
    early, wanted = ramping(), judged()
    early.evidence = known(report(Verdict.FAIL, reason, 0))
    early.look(wanted)
    assert early.weight("boosted") == 10
    world = deciding()
    world.evidence = known(report(Verdict.FAIL, reason, 1))
    finish(world, wanted)
    assert world.weight("boosted") == 0
    assert world.record.history[0].reason == reason


def test_what_follows_a_failure_is_as_the_spec_says() -> None:
    wanted = judged(onFailure="Hold")
    world = deciding(wanted)
    world.evidence = known(report(Verdict.FAIL, Why.NO_WORTHWHILE_EFFECT, 1), wanted=wanted)
    world.look(wanted, 5)
    assert (world.state, world.weight("boosted")) == (State.DECIDING, 50)
    assert world.record.untold == ()  # nothing is decided yet


def test_a_pass_in_the_last_step_promotes_the_winner() -> None:
    world, wanted = deciding(), judged()
    world.evidence = known(report(Verdict.PASS, Why.SUPERIOR, 1))
    finish(world, wanted)
    assert world.weight("boosted") == 100
    assert world.record.history[0].reason == Why.SUPERIOR


def test_a_pass_before_the_last_step_promotes_nobody_and_the_step_is_held() -> None:
    world, wanted = ramping(), judged()
    world.evidence = known(report(Verdict.PASS, Why.NON_INFERIOR, 0))
    world.look(wanted)
    assert world.weight("boosted") == 10
    world.wait(11 * MINUTE)
    for _ in range(3):
        world.look(wanted)
        world.become(Health.READY)
    assert world.weight("boosted") == 50


def test_the_end_of_the_time_keeps_control() -> None:
    world, wanted = deciding(), judged()
    world.evidence = known(report(Verdict.INSUFFICIENT, Why.HORIZON_REACHED, 1))
    finish(world, wanted)
    assert world.weight("boosted") == 0
    decision = status(world, wanted).rollout.decision
    assert decision is not None
    assert (decision.verdict, decision.reason, decision.analysis) == ("Rollback", "HorizonReached", "Insufficient")


@pytest.mark.parametrize(("verdict", "reason"), UNDECIDED[1:])
def test_a_broken_comparison_or_a_silent_source_keeps_the_step(verdict: Verdict, reason: Why) -> None:
    world, wanted = ramping(), judged()
    world.evidence = known(report(verdict, reason, 0))
    world.wait(60 * MINUTE)
    world.look(wanted, 5)
    assert (world.state, world.weight("boosted")) == (State.RAMPING, 10)
    told = condition(world, wanted)
    assert (told.status, told.reason.value) == ("False", reason.value)
    world.evidence = known(report(*WAITING, 0))
    for _ in range(3):
        world.look(wanted)
        world.become(Health.READY)
    assert world.weight("boosted") == 50


def test_a_broken_comparison_withdraws_no_weight_unlike_a_broken_assignment() -> None:
    world, wanted = deciding(), judged()
    world.evidence = known(report(Verdict.INVALID, Why.SAMPLE_RATIO, 1))
    world.look(wanted, 5)
    assert (world.weight("boosted"), world.record.invalid) == (50, None)
    world.mismatched = "some units are elsewhere"
    world.look(wanted)
    assert (world.weight("boosted"), world.record.invalid) == (0, SALT)


def test_no_outcome_that_is_old_enough_yet_does_not_stop_a_ramp() -> None:
    world, wanted = ramping(), judged()
    world.evidence = known(report(Verdict.NO_DATA, Why.NOT_YET_MATURE, 0))
    world.wait(11 * MINUTE)
    for _ in range(3):
        world.look(wanted)
        world.become(Health.READY)
    assert world.weight("boosted") == 50


def test_a_dead_ledger_changes_nothing_and_is_told() -> None:
    world, wanted = deciding(), judged()
    world.evidence = known(report(Verdict.PASS, Why.SUPERIOR, 1), trouble=DEAD)
    world.wait(60 * MINUTE)
    world.look(wanted, 5)
    assert (world.state, world.weight("boosted")) == (State.DECIDING, 50)
    assert condition(world, wanted).reason is Reason.LEDGER_UNREACHABLE
    ramp = ramping()
    ramp.evidence = known(report(*WAITING, 0), trouble=DEAD)
    ramp.wait(60 * MINUTE)
    ramp.look(wanted, 5)
    assert (ramp.state, ramp.weight("boosted")) == (State.RAMPING, 10)


@given(
    said=st.lists(
        st.tuples(st.sampled_from(UNDECIDED), st.sampled_from([0, 1]), st.booleans(), st.booleans()), max_size=25
    )
)
@settings(max_examples=60, deadline=None)
def test_no_sequence_without_a_judgement_promotes_or_rolls_back(
    said: list[tuple[tuple[Verdict, Why], int, bool, bool]],
) -> None:
    world, wanted = ramping(), judged()
    reports = {0: report(*WAITING, 0)}
    for (verdict, reason), phase, dies, forgets in said:
        reports[phase] = report(verdict, reason, phase)
        world.evidence = known(*reports.values(), trouble=DEAD if dies else None)
        world.wait(11 * MINUTE)
        if forgets:  # the operator ends and begins again from the copy on the route
            world.lose_record()
        world.reconcile(wanted)
        world.become(Health.READY)
        assert world.record.run is not None
        assert world.state in {State.RAMPING, State.DECIDING}
        assert world.weight("boosted") in {10, 50}
        assert world.weight("boosted") * 100 <= wanted.strategy.steps[world.record.run.step].weights_bp["boosted"]
        assert world.record.run.decision is None


@pytest.mark.parametrize("ends", [(Verdict.PASS, Why.SUPERIOR), (Verdict.FAIL, Why.GUARDRAIL_BREACHED)])
def test_ending_anywhere_it_goes_on_to_the_same_decision(ends: tuple[Verdict, Why]) -> None:
    def story(die_at: int | None) -> World:
        world, wanted = World(), judged()
        world.evidence = known()

        def look() -> None:
            for _ in range(4):
                left = None if die_at is None or len(world.done) >= die_at else die_at - len(world.done)
                world.reconcile(wanted, stop_after=left)
                if left is not None and len(world.done) == die_at:
                    world.lose_record()

        for reports in ([report(*WAITING, 0)] * 4, [report(*WAITING, 0), report(*WAITING, 1)] * 4):
            for _ in range(4):
                world.evidence = known(*reports)
                look()
                world.become(Health.READY)
                world.wait(5 * MINUTE)
        world.evidence = known(report(*WAITING, 0), report(*ends, 1))
        for _ in range(6):
            look()
            world.become(Health.READY)
        return world

    whole = story(None)
    assert whole.is_at(State.STABLE)
    for die_at in range(1, len(whole.done) + 1):
        ended = story(die_at)
        assert ended.is_at(State.STABLE), die_at
        assert ended.route == whole.route, die_at
        assert [one.decision.reason for one in ended.record.untold] == [ends[1]], die_at


def test_a_decision_is_told_until_the_ledger_has_it() -> None:
    world, wanted = deciding(), judged()
    world.evidence = known(report(Verdict.PASS, Why.SUPERIOR, 1))
    finish(world, wanted)
    (untold,) = world.record.untold
    assert (untold.salt, untold.decision.verdict, untold.decision.winner) == (SALT, "Promote", "boosted")
    world.evidence = dataclasses.replace(world.evidence, trouble=DEAD)
    assert condition(world, wanted).message.startswith("the decision has no record yet")
    there = Recorded("http://ledger/record", "sha256:0")
    world.evidence = dataclasses.replace(world.evidence, trouble=None, told={SALT: there})
    world.look(wanted)
    assert world.record.untold == ()
    decision = status(world, wanted).rollout.decision
    assert decision is not None
    assert (decision.record, decision.record_digest) == (there.address, there.digest)


def test_an_experiment_that_is_left_for_another_is_told_as_superseded() -> None:
    world = ramping()
    following = experiment(RAMP, named={**BLOCK, "id": "e2"})
    world.evidence = Evidence()
    world.look(following)
    (untold,) = world.record.untold
    assert (untold.salt, untold.decision.verdict, untold.decision.reason) == (SALT, "Rollback", "Superseded")
    world.evidence = Evidence(told={SALT: None})
    world.look(following)
    assert world.record.untold == ()


def test_the_status_tells_what_the_ledger_said() -> None:
    world, wanted = deciding(), judged()
    said = report(*WAITING, 1)
    world.evidence = dataclasses.replace(known(report(*WAITING, 0), said), page="http://ledger/page")
    told = status(world, wanted).experiment
    assert told is not None
    assert (told.verdict, told.reason, told.page) == ("Insufficient", "TooFewEffectiveUnits", "http://ledger/page")
    assert told.units == {arm.variant: arm.units for arm in said.arms}
    assert told.sample_ratio is not None
    assert told.sample_ratio.ok
    objective, *guardrails = told.metrics
    assert (objective.name, objective.role, objective.verdict) == ("brier", "Objective", "Pass")
    assert (objective.effect, objective.low, objective.high) == (-0.061, -0.098, -0.023)
    assert [(one.name, one.verdict) for one in guardrails] == [("latency_ms", "Pass"), ("error", "Pass")]
    assert status(world, wanted).rollout.verdict == "Insufficient (TooFewEffectiveUnits)"
    assert told.design == known().registered
