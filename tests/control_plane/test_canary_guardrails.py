"""Canaries with guardrails: each run an experiment of its own, between two revisions of one variant."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.experiment.report import Reason as Why
from fairlead.experiment.report import Report, Verdict
from fairlead_operator.api.conditions import Condition, ConditionType, Reason
from fairlead_operator.api.v1alpha1 import Status
from fairlead_operator.core.canary import compared
from fairlead_operator.core.desired import Desired
from fairlead_operator.core.evidence import NO_EVIDENCE, Evidence, Trouble
from fairlead_operator.core.observed import Health
from fairlead_operator.core.record import Recorded, State, dumped, loaded
from fairlead_operator.core.status import Surroundings, status_of
from support.reports import flights_report
from support.world import CANARY, World, canary, deployment, steps

MINUTE = 60.0
BLOCK: dict[str, Any] = {
    "guardrails": [{"metric": "latency_ms", "margin": "10%"}, {"metric": "error", "margin": "1pp"}]
}
DEAD = Trouble(Reason.LEDGER_UNREACHABLE, "the ledger does not answer")
GOOD = (Verdict.PASS, Why.NON_INFERIOR)
OPEN = (Verdict.INSUFFICIENT, Why.TOO_FEW_EFFECTIVE_UNITS)
BREACH = (Verdict.FAIL, Why.GUARDRAIL_BREACHED)
UNDECIDED = [
    (Verdict.NO_DATA, Why.NOT_YET_MATURE),
    (Verdict.NO_DATA, Why.SOURCE_DOWN),
    (Verdict.INSUFFICIENT, Why.NOT_YET_MATURE),
    (Verdict.INVALID, Why.SAMPLE_RATIO),
    (Verdict.INVALID, Why.LABEL_COVERAGE),
]
"""What lets no step pass, whenever and however often it comes."""


def guarded(digest: str = "b", planned: list[dict[str, Any]] = CANARY, **more: Any) -> Desired:
    """Return what a canary with guardrails asks for; ``digest`` is its model's."""
    return canary(digest, planned, **{"experiment": BLOCK, **more})


def report(world: World, wanted: Desired, said: tuple[Verdict, Why], phase: int) -> Report:
    return flights_report(*said, phase=phase, design=compared(wanted, world.record).design)


def tell(world: World, wanted: Desired, *said: tuple[Verdict, Why], trouble: Trouble | None = None) -> None:
    """Let the ledger have the design of the run under way, and say this of its first steps."""
    design = compared(wanted, world.record).design
    assert design is not None
    reports = {phase: report(world, wanted, one, phase) for phase, one in enumerate(said)}
    world.evidence = Evidence(design.digest, reports, trouble)


def begun() -> World:
    """Return a world in which revision a serves everything, and b was asked for."""
    world = World()
    world.settle(guarded("a"))
    world.evidence = NO_EVIDENCE
    world.look(guarded("b"))
    world.become(Health.READY)
    return world


def go_well(world: World, wanted: Desired, times: int = 3) -> None:
    for _ in range(times):
        world.look(wanted)
        world.become(Health.READY)


def ramping(wanted: Desired | None = None) -> World:
    """Return a world whose canary has its first step's weights in force."""
    world, wanted = begun(), wanted or guarded()
    tell(world, wanted, OPEN)
    go_well(world, wanted)
    assert (world.state, world.share(wanted)) == (State.RAMPING, 10)
    return world


def salt(world: World) -> str:
    assert world.record.run is not None
    return world.record.run.id


def status(world: World, wanted: Desired) -> Status:
    around = Surroundings(None, world.now_s, evidence=world.evidence or NO_EVIDENCE)
    given = deployment(roles={"logistic": "Control"}, experiment=BLOCK, rollout={"strategy": "Canary", "steps": CANARY})
    return status_of(given, wanted, world.observed, world.record, around)


def condition(world: World, wanted: Desired) -> Condition:
    kinds = {one.type: one for one in status(world, wanted).conditions}
    return kinds[ConditionType.EXPERIMENT_HEALTHY]


def test_a_run_is_designed_when_it_begins_between_the_revision_that_serves_and_the_new_one() -> None:
    world, stable, candidate = begun(), guarded("a").revisions["logistic"], guarded().revisions["logistic"]
    design = compared(guarded(), world.record).design
    assert design is not None
    assert design.salt == f"flights/arrival-delay/{candidate.name}-{world.now_s:.0f}"
    assert (design.control, design.treatments) == (stable.name, (candidate.name,))
    assert [phase.weights_bp for phase in design.phases] == [{candidate.name: 1000}, {candidate.name: 5000}]
    assert design.digests == {stable.name: stable.prediction, candidate.name: candidate.prediction}
    assert design.objective is None
    assert loaded(dumped(world.record)) == world.record


def test_nobody_meets_the_new_revision_before_the_ledger_has_the_design() -> None:
    world, wanted = begun(), guarded()
    world.evidence = Evidence(trouble=DEAD)
    for _ in range(3):
        go_well(world, wanted)
        world.wait(30 * MINUTE)
    assert (world.state, world.share(wanted)) == (State.DEPLOYING, 0)
    assert condition(world, wanted).reason is Reason.LEDGER_UNREACHABLE
    tell(world, wanted)
    go_well(world, wanted)
    assert world.share(wanted) == 10


def test_the_route_tells_of_arms_by_revision_and_clients_of_the_variant() -> None:
    world, wanted = ramping(), guarded()
    assert world.route is not None
    told = world.route.observation
    assert told is not None
    new, old = (guarded(digest).revisions["logistic"].name for digest in "ba")
    assert (told.salt, told.phase) == (salt(world), 0)
    assert [(piece.arm, piece.width) for piece in told.layout.slices] == [(new, 1000), (old, 9000)]
    assert [told.arm(one) for one in world.route.split] == [new, old]
    assert {one.variant for one in world.route.split} == {"logistic"}
    assert status(world, wanted).experiment is not None


def test_a_unit_that_is_in_the_canary_stays_in_it_and_its_salt_is_fresh_for_each_run() -> None:
    world, wanted = ramping(), guarded()
    first, before = salt(world), world.route
    world.wait(11 * MINUTE)
    go_well(world, wanted)
    assert world.route is not None
    assert before is not None
    assert (world.share(wanted), world.route.salt, before.salt) == (50, first, first)
    world.evidence = NO_EVIDENCE
    world.settle(guarded("a"))
    world.look(wanted)
    assert salt(world) != first, "the same revision again, drawn anew"


def test_two_runs_of_a_revision_within_a_second_are_two() -> None:
    world = ramping()
    first = salt(world)
    world.evidence = NO_EVIDENCE
    world.look(guarded("a"))
    world.look(guarded("b"))
    assert salt(world) not in {first, "flights/arrival-delay/rollout"}


@pytest.mark.parametrize("waited", [0, 11 * MINUTE])
def test_a_breached_guardrail_rolls_back_at_once(waited: float) -> None:
    world, wanted = ramping(), guarded()
    world.wait(waited)
    go_well(world, wanted)
    run = world.record.run
    assert run is not None
    tell(world, wanted, *[OPEN] * run.step, BREACH)
    world.look(wanted)
    assert world.share(wanted) == 0
    go_well(world, wanted)
    assert world.is_at(State.STABLE)
    told = status(world, wanted)
    assert told.rollout.decision is not None
    assert (told.rollout.decision.verdict, told.rollout.decision.reason) == ("Rollback", "GuardrailBreached")
    assert told.rollout.decision.analysis == "Fail"
    (untold,) = world.record.untold
    assert (untold.salt, untold.decision.verdict, untold.decision.winner) == (run.id, "Rollback", None)


def test_a_good_one_is_promoted_by_its_steps_and_the_ledger_is_told_which_revision_won() -> None:
    world, wanted = ramping(), guarded()
    name, run = wanted.revisions["logistic"].name, salt(world)
    world.wait(9 * MINUTE)
    tell(world, wanted, GOOD)
    go_well(world, wanted)
    assert world.share(wanted) == 10, "what is shown early does not shorten a step"
    world.wait(2 * MINUTE)
    go_well(world, wanted)
    tell(world, wanted, GOOD, OPEN)
    assert world.share(wanted) == 50
    world.wait(11 * MINUTE)
    go_well(world, wanted)
    assert (world.state, world.share(wanted)) == (State.STABLE, 100)
    assert world.record.history[0].reason == "StepsCompleted"
    (untold,) = world.record.untold
    assert (untold.salt, untold.decision.verdict, untold.decision.winner) == (run, "Promote", name)
    world.evidence = Evidence(told={run: Recorded("http://ledger/record", "sha256:0")})
    go_well(world, wanted)
    assert world.record.untold == ()
    told = status(world, wanted).rollout
    assert told.decision is not None
    assert (told.decision.variant, told.decision.record) == ("logistic", "http://ledger/record")
    assert (told.candidate, told.stable) == (None, name)


@pytest.mark.parametrize("said", UNDECIDED)
def test_no_data_and_a_broken_comparison_neither_promote_nor_roll_back(said: tuple[Verdict, Why]) -> None:
    world, wanted = ramping(), guarded()
    tell(world, wanted, said)
    world.wait(300 * MINUTE)
    go_well(world, wanted)
    assert (world.state, world.share(wanted)) == (State.RAMPING, 10)
    tell(world, wanted, OPEN)
    go_well(world, wanted)
    assert world.share(wanted) == 50
    world.wait(9 * MINUTE)
    tell(world, wanted, OPEN, said)
    world.wait(300 * MINUTE)
    go_well(world, wanted)
    assert world.share(wanted) == 50
    assert world.record.run is not None
    assert world.record.run.decision is None


def test_what_breaks_when_the_last_step_s_time_is_over_promotes_nobody() -> None:
    world, wanted = ramping(), guarded(rollout={"onSuccess": "Hold"})
    world = ramping(wanted)
    world.wait(11 * MINUTE)
    go_well(world, wanted)
    world.wait(11 * MINUTE)
    tell(world, wanted, OPEN, OPEN)
    go_well(world, wanted)
    assert world.is_at(State.DECIDING)
    tell(world, wanted, OPEN, (Verdict.INVALID, Why.SAMPLE_RATIO))
    promoting = guarded()
    go_well(world, promoting)
    assert (world.state, world.share(promoting)) == (State.DECIDING, 50)


def test_a_dead_ledger_keeps_the_step_and_is_told() -> None:
    world, wanted = ramping(), guarded()
    tell(world, wanted, GOOD, trouble=DEAD)
    world.wait(60 * MINUTE)
    go_well(world, wanted)
    assert (world.state, world.share(wanted)) == (State.RAMPING, 10)
    assert condition(world, wanted).reason is Reason.LEDGER_UNREACHABLE


@given(said=st.lists(st.tuples(st.sampled_from(UNDECIDED), st.booleans(), st.booleans()), max_size=20))
@settings(max_examples=40, deadline=None)
def test_no_sequence_without_a_judgement_decides(said: list[tuple[tuple[Verdict, Why], bool, bool]]) -> None:
    world, wanted = ramping(), guarded()
    for one, dies, forgets in said:
        tell(world, wanted, one, trouble=DEAD if dies else None)
        world.wait(11 * MINUTE)
        if forgets:
            world.lose_record()
        world.reconcile(wanted)
        world.become(Health.READY)
        assert (world.state, world.share(wanted)) == (State.RAMPING, 10)


@pytest.mark.parametrize(
    "edited",
    [
        guarded(experiment={"guardrails": [{"metric": "error", "margin": "2pp"}]}),
        guarded(planned=steps(({"logistic": 20}, "10m"), ({"logistic": 50}, "10m"))),
        guarded(routing={"unit": {"header": "x-other"}}),
        guarded("c"),
    ],
    ids=["guardrails", "weights", "unit", "a newer revision"],
)
def test_what_a_design_froze_begins_a_new_run_and_the_old_one_is_told_as_superseded(edited: Desired) -> None:
    world = ramping()
    before = salt(world)
    world.evidence = NO_EVIDENCE
    world.look(edited)
    (untold,) = world.record.untold
    assert (untold.salt, untold.decision.reason) == (before, "Superseded")
    assert salt(world) != before
    assert world.share(edited) == 0, "from the first step on"
    assert world.record.history[0].revision == guarded().revisions["logistic"].name


def test_how_long_steps_are_held_may_change_under_way() -> None:
    world, before = ramping(), salt(ramping())
    longer = guarded(planned=steps(({"logistic": 10}, "3h"), ({"logistic": 50}, "10m")))
    world.wait(11 * MINUTE)
    go_well(world, longer)
    assert (salt(world), world.share(longer)) == (before, 10)


@pytest.mark.parametrize(
    "edited", [guarded(experiment=None), guarded(experiment={"guardrails": [{"metric": "error", "margin": "2pp"}]})]
)
def test_a_revision_that_was_rolled_back_is_not_tried_again_for_an_edit_of_guardrails(edited: Desired) -> None:
    world, wanted = ramping(), guarded()
    tell(world, wanted, BREACH)
    go_well(world, wanted)
    before = salt(world)
    world.evidence = NO_EVIDENCE
    go_well(world, edited)
    world.wait(60 * MINUTE)
    go_well(world, edited)
    assert (salt(world), world.share(edited), world.state) == (before, 0, State.STABLE)


def test_guardrails_that_come_and_go_under_way_begin_a_new_run() -> None:
    world = ramping()
    plain = guarded(experiment=None)
    world.evidence = NO_EVIDENCE
    go_well(world, plain)
    assert salt(world) == plain.revisions["logistic"].name
    assert world.route is not None
    assert world.route.observation is None
    world.look(guarded())
    assert salt(world).startswith("flights/arrival-delay/arrival-delay-logistic-")


def test_while_the_serving_revision_does_not_answer_nobody_is_told_of_the_canary() -> None:
    world, wanted = ramping(), guarded()
    stable = guarded("a").revisions["logistic"].name
    world.servers[stable] = dataclasses.replace(world.servers[stable], health=Health.UNREADY)
    world.look(wanted)
    assert world.route is not None
    assert world.route.observation is None
    world.become(Health.READY)
    world.look(wanted)
    assert world.route.observation is not None


def test_between_canaries_there_is_nothing_to_compare() -> None:
    world, wanted = World(), guarded("a")
    world.settle(wanted)
    told = condition(world, wanted)
    assert (told.status, told.reason) == ("True", Reason.NO_EXPERIMENT)
    assert status(world, wanted).experiment is None
    assert compared(wanted, world.record).design is None
