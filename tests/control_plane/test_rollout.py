"""The rollout's states, as a reader of its law would try them; in a world of data alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fairlead import Layout, Slice, assign
from fairlead_operator.api.conditions import ConditionType, Reason
from fairlead_operator.core.desired import Desired, refuse_breaking_edit
from fairlead_operator.core.observed import Health, Problem, Route
from fairlead_operator.core.record import Record, State, dumped, loaded
from fairlead_operator.core.rollout import Analysis, Verdict, replicas_for
from fairlead_operator.core.timing import next_look_s
from fairlead_operator.errors import EditRefused
from support.world import World, canary, deployment, desired, experiment, steps

HOLD = {"onSuccess": "Hold"}
MINUTE = 60.0
SALT = "flights/arrival-delay/e1"
PASS = Analysis(Verdict.PASS, "ObjectiveMet", "boosted")
FAIL = Analysis(Verdict.FAIL, "GuardrailFailed")


def ramping(wanted: Desired | None = None) -> World:
    """Return a world whose experiment has its first step's weights in force."""
    wanted = wanted or experiment()
    world = World()
    world.reconcile(wanted)
    world.become(Health.READY)
    world.look(wanted, 4)
    world.become(Health.READY)
    world.look(wanted)
    assert world.record.run
    assert (world.state, world.record.run.step, world.record.run.in_force) == (State.RAMPING, 0, True)
    return world


def deciding(wanted: Desired | None = None) -> World:
    """Return a world whose experiment has held all its steps."""
    wanted = wanted or experiment()
    world = ramping(wanted)
    for _ in wanted.strategy.steps:
        world.wait(11 * MINUTE)
        world.look(wanted)
        world.become(Health.READY)
        world.look(wanted)
    assert world.is_at(State.DECIDING)
    return world


def promoted(wanted: Desired | None = None) -> World:
    wanted = wanted or experiment()
    world = deciding(wanted)
    world.analysis = PASS
    finish(world, wanted)
    assert world.weight("boosted") == 100
    return world


def canarying(wanted: Desired | None = None, **named: Any) -> World:
    """Return a world in which a new revision of a single model has its first step's weight."""
    world = World()
    world.settle(canary("a", **named))
    wanted = wanted or canary("b", **named)
    world.reconcile(wanted)
    world.become(Health.READY)
    world.look(wanted, 4)
    assert world.is_at(State.RAMPING)
    assert world.share(wanted) == 10
    return world


def finish(world: World, wanted: Desired) -> None:
    for _ in range(4):
        world.look(wanted)
        world.become(Health.READY)
    assert world.is_at(State.STABLE), world.record.run


def test_an_experiment_passes_every_state_in_order() -> None:
    world, wanted, seen = World(), experiment(), list[State]()

    def look() -> None:
        world.reconcile(wanted)
        if seen[-1:] != [world.state]:
            seen.append(world.state)

    look()
    world.become(Health.READY, "logistic")
    look()
    look()
    world.become(Health.READY, "boosted")
    for _ in range(30):
        look()
        world.wait(MINUTE)
    world.analysis = PASS
    for _ in range(5):
        look()
    assert seen == [
        State.PENDING, State.DEPLOYING, State.RAMPING, State.DECIDING, State.PROMOTING, State.STABLE
    ]  # fmt: skip
    assert [route.weight_bp("boosted") for route in world.written] == [0, 1000, 5000, 5000, 10_000]


def test_no_treatment_has_weight_before_all_of_them_are_complete() -> None:
    roles = {"logistic": "Control", "a": "Treatment", "b": "Treatment"}
    wanted = experiment(steps(({"a": 10, "b": 10}, None)), roles=roles)
    world = World()
    world.reconcile(wanted)
    world.become(Health.READY, "logistic", "a")
    world.look(wanted)
    assert (world.state, world.weight("a")) == (State.DEPLOYING, 0)
    world.become(Health.READY, "b")
    world.look(wanted)
    assert (world.weight("a"), world.weight("b")) == (10, 10)


def test_a_step_is_held_from_when_its_weights_are_in_force() -> None:
    world, wanted = ramping(), experiment()
    world.wait(9 * MINUTE)
    world.look(wanted)
    assert world.weight("boosted") == 10
    world.wait(MINUTE)
    world.look(wanted)
    assert world.weight("boosted") == 50


def test_time_in_which_a_treatment_is_out_of_traffic_is_not_counted() -> None:
    world, wanted = ramping(), experiment()
    world.wait(9 * MINUTE)
    world.become(Health.UNREADY, "boosted")
    world.look(wanted)
    assert world.weight("boosted") == 0
    world.wait(50)
    world.become(Health.READY, "boosted")
    world.look(wanted)
    assert world.weight("boosted") == 10
    world.wait(MINUTE - 1)
    world.look(wanted)
    assert world.weight("boosted") == 10
    world.wait(1)
    world.look(wanted)
    assert world.weight("boosted") == 50


def test_time_in_which_control_does_not_answer_is_not_counted_and_fails_nobody() -> None:
    world, wanted = ramping(), experiment()
    world.become(Health.CRASHED, "logistic")
    world.look(wanted)
    assert world.route
    assert world.route.observation is None
    world.wait(60 * MINUTE)
    world.look(wanted)
    assert (world.state, world.weight("boosted")) == (State.RAMPING, 10)
    world.become(Health.READY, "logistic")
    world.look(wanted)
    world.wait(9 * MINUTE)
    world.look(wanted)
    assert (world.state, world.weight("boosted")) == (State.RAMPING, 10)
    world.wait(MINUTE)
    world.look(wanted)
    assert world.weight("boosted") == 50


def gap(world: World, wanted: Desired, seconds: float) -> None:
    world.become(Health.UNREADY, "boosted")
    world.look(wanted)
    world.wait(seconds)
    world.look(wanted)
    world.become(Health.READY, "boosted")
    world.look(wanted)
    world.wait(5)
    world.look(wanted)


def test_three_gaps_are_borne_and_a_fourth_fails() -> None:
    world, wanted = ramping(), experiment()
    for _ in range(3):
        gap(world, wanted, 1)
    assert (world.state, world.weight("boosted")) == (State.RAMPING, 10)
    gap(world, wanted, 1)
    assert world.record.run
    assert world.record.run.decision
    assert world.record.run.decision.reason == Reason.GAPS_EXCEEDED
    assert world.weight("boosted") == 0


@pytest.mark.parametrize(("hold", "bearable_s"), [("10m", 60), ("100m", 300)])
def test_gaps_of_more_than_a_twentieth_of_the_step_fail_but_never_a_minute(hold: str, bearable_s: float) -> None:
    wanted = experiment(steps(({"boosted": 10}, hold), ({"boosted": 50}, None)))
    world = ramping(wanted)
    gap(world, wanted, bearable_s)
    assert world.is_at(State.RAMPING)
    gap(world, wanted, 1)
    assert world.is_at(State.STABLE)
    assert world.weight("boosted") == 0


def test_a_new_step_begins_without_gaps() -> None:
    world, wanted = ramping(), experiment()
    for _ in range(3):
        gap(world, wanted, 1)
    world.wait(10 * MINUTE)
    world.look(wanted)
    assert world.weight("boosted") == 50
    gap(world, wanted, 1)
    assert (world.state, world.weight("boosted")) == (State.RAMPING, 50)


def test_a_candidate_that_is_not_ready_within_the_deadline_is_rolled_back_and_not_started_again() -> None:
    world, wanted = World(), experiment()
    world.reconcile(wanted)
    world.become(Health.READY, "logistic")
    world.look(wanted)
    world.wait(10 * MINUTE)
    world.look(wanted)
    assert world.is_at(State.DEPLOYING)
    world.wait(1)
    world.look(wanted)
    assert world.record.history[0].reason == Reason.PROGRESS_DEADLINE_EXCEEDED
    world.wait(61 * MINUTE)
    world.look(wanted)
    assert {server.variant for server in world.servers.values()} == {"logistic"}


def test_a_candidate_that_cannot_even_be_started_is_not_late() -> None:
    world, wanted = World(), experiment()
    world.settle(desired({}, roles={"logistic": "Control"}, experiment=None))
    world.problems = (Problem(ConditionType.VARIANTS_READY, Reason.KSERVE_MISSING, "gone", stops_servers=True),)
    world.look(wanted)
    world.wait(60 * MINUTE)
    world.look(wanted)
    assert world.is_at(State.DEPLOYING)
    world.problems = ()
    world.look(wanted)
    world.become(Health.READY)
    world.look(wanted)
    assert world.weight("boosted") == 10


def test_a_treatment_that_dies_before_the_next_weights_are_in_force_has_the_deadline_to_come_back() -> None:
    world, wanted = ramping(), experiment()
    world.wait(10 * MINUTE)
    world.reconcile(wanted)  # the next step is begun and its route written ...
    world.become(Health.CRASHED, "boosted")  # ... but never seen in force
    world.look(wanted)
    assert world.weight("boosted") == 0
    world.wait(10 * MINUTE + 1)
    world.look(wanted)
    assert world.is_at(State.STABLE)
    assert world.record.history[0].reason == Reason.PROGRESS_DEADLINE_EXCEEDED


@pytest.mark.parametrize("verdict", [Verdict.NO_DATA, Verdict.INSUFFICIENT])
def test_no_data_never_decides(verdict: Verdict) -> None:
    world, wanted = deciding(), experiment()
    world.analysis = Analysis(verdict, "Whatever", "boosted")
    world.wait(365 * 24 * 60 * MINUTE)
    world.look(wanted)
    assert (world.state, world.weight("boosted")) == (State.DECIDING, 50)


def test_a_pass_decides_in_the_last_step_alone() -> None:
    world, wanted = ramping(), experiment()
    world.analysis = PASS
    world.look(wanted)
    assert (world.state, world.weight("boosted")) == (State.RAMPING, 10)
    assert promoted().record.history[0].reason == "ObjectiveMet"


@pytest.mark.parametrize("make", [ramping, deciding])
def test_a_failure_rolls_back_without_waiting_for_the_step(make: Any) -> None:
    world, wanted = make(), experiment()
    world.analysis = FAIL
    world.look(wanted)
    assert (world.state, world.weight("boosted")) == (State.STABLE, 0)
    assert (world.record.history[0].verdict, world.record.history[0].reason) == ("Rollback", "GuardrailFailed")
    assert world.record.decided == (SALT,)


def test_an_invalid_assignment_withdraws_the_weight_at_once_and_for_good() -> None:
    world, wanted = ramping(), experiment()
    world.mismatched = "12 of 1000 units are elsewhere"
    world.reconcile(wanted)
    assert world.weight("boosted") == 0
    world.mismatched = None
    world.look(wanted)
    assert (world.state, world.weight("boosted")) == (State.STABLE, 0)
    assert world.record.history[0].reason == Reason.ASSIGNMENT_INVALID
    again = experiment(named="e2")
    for _ in range(4):
        world.look(again)
        world.become(Health.READY)
    assert world.weight("boosted") == 10


def test_a_failure_under_hold_keeps_the_step_and_waits_for_somebody() -> None:
    wanted = experiment(rollout={"onFailure": "Hold"})
    world = ramping(wanted)
    world.analysis = FAIL
    world.look(wanted)
    world.analysis = PASS
    world.wait(60 * MINUTE)
    world.look(wanted)
    assert world.record.run
    assert world.record.run.decision
    assert (world.state, world.weight("boosted")) == (State.DECIDING, 10)
    assert (world.record.run.decision.verdict, world.record.run.decision.reason) == ("Hold", "GuardrailFailed")
    asked = experiment(rollout={"onFailure": "Hold"}, request=f"abort {SALT}")
    finish(world, asked)
    assert world.weight("boosted") == 0


def test_an_invalid_assignment_under_hold_withdraws_the_weight_until_somebody_decides() -> None:
    wanted = experiment(rollout={"onFailure": "Hold"})
    world = ramping(wanted)
    world.mismatched = "12 of 1000 units are elsewhere"
    world.look(wanted)
    world.mismatched = None
    world.look(wanted)
    assert (world.state, world.weight("boosted")) == (State.DECIDING, 0)
    finish(world, experiment(rollout={"onFailure": "Hold"}, request=f"promote boosted {SALT}"))
    assert world.weight("boosted") == 100


def test_a_success_under_hold_waits_for_somebody_and_still_fails_on_a_failure() -> None:
    wanted = experiment(rollout=HOLD)
    world = deciding(wanted)
    world.analysis = PASS
    world.look(wanted)
    assert world.record.run
    assert world.record.run.decision
    assert (world.state, world.record.run.decision.verdict, world.record.run.decision.winner) == (
        State.DECIDING,
        "Hold",
        "boosted",
    )
    world.analysis = FAIL
    world.look(wanted)
    assert (world.state, world.weight("boosted")) == (State.STABLE, 0)


@pytest.mark.parametrize("make", [ramping, deciding])
def test_somebody_may_promote_while_a_treatment_has_weight(make: Any) -> None:
    world = make()
    finish(world, experiment(request=f"promote boosted {SALT}"))
    assert world.weight("boosted") == 100
    assert world.record.history[0].reason == "Requested"


@pytest.mark.parametrize(
    "request_", ["promote boosted other", "promote logistic " + SALT, "promote", "abort", "", f"delete {SALT}"]
)
def test_a_request_that_speaks_of_something_else_is_nothing(request_: str) -> None:
    world = ramping()
    world.look(experiment(request=request_))
    assert (world.state, world.weight("boosted")) == (State.RAMPING, 10)


def test_a_promotion_is_asked_for_in_vain_before_the_ramp() -> None:
    world, wanted = World(), experiment(request=f"promote boosted {SALT}")
    world.reconcile(experiment())
    world.become(Health.READY, "logistic")
    world.look(wanted)
    assert world.is_at(State.DEPLOYING)


def test_an_abort_is_carried_out_in_every_state_before_the_end() -> None:
    asked = experiment(request=f"abort {SALT}")
    deploying = World()
    deploying.reconcile(experiment())
    pending = World()
    pending.reconcile(experiment())
    pending.route = None
    deploying.become(Health.READY, "logistic")
    deploying.look(experiment())
    promoting = deciding()
    promoting.analysis = PASS
    promoting.reconcile(experiment())
    assert (pending.state, deploying.state, promoting.state) == (State.PENDING, State.DEPLOYING, State.PROMOTING)
    for world in (deploying, ramping(), deciding(), promoting):
        finish(world, asked)
        assert world.weight("boosted") == 0
        assert world.record.history[0].verdict == "Rollback"
    pending.reconcile(asked)
    assert pending.is_at(State.STABLE)


def test_an_abort_after_a_promotion_goes_back_while_control_is_kept() -> None:
    world, asked = promoted(), experiment(request=f"abort {SALT}")
    world.look(asked)
    assert (world.weight("boosted"), world.weight("logistic")) == (0, 100)
    assert [past.verdict for past in world.record.history] == ["Rollback", "Promote"]
    late = promoted()
    late.wait(61 * MINUTE)
    late.look(experiment())
    late.look(asked)
    assert late.weight("boosted") == 100


def test_a_step_waits_for_what_control_has_come_to_need_meanwhile() -> None:
    scaling = {"logistic": {"minReplicas": 1, "maxReplicas": 10}, "boosted": {"minReplicas": 1, "maxReplicas": 10}}
    wanted = experiment(scaling=scaling)
    world = World()
    world.settle(desired({}, roles={"logistic": "Control"}, experiment=None, scaling=scaling))
    control, treatment = (wanted.revisions[name].name for name in ("logistic", "boosted"))
    while not world.weight("boosted"):
        world.look(wanted)
        world.become(Health.READY)
    first = world.weight("boosted")
    world.servers[control] = dataclasses.replace(world.servers[control], replicas=8)  # the autoscaler's doing
    for _ in range(25):
        world.look(wanted)
        if world.weight("boosted") > first:
            break
        world.become(Health.READY)
        world.wait(MINUTE)
    needed = replicas_for(round(world.weight("boosted") * 100), 8)
    assert world.weight("boosted") > first
    assert needed > 1
    assert world.servers[treatment].min_replicas >= needed
    assert world.servers[control].min_replicas == 8


def test_candidates_of_which_more_is_asked_have_as_long_again() -> None:
    scaling = {"logistic": {"minReplicas": 1, "maxReplicas": 30}, "boosted": {"minReplicas": 1, "maxReplicas": 30}}
    wanted = experiment(scaling=scaling)
    world = World()
    world.settle(desired({}, roles={"logistic": "Control"}, experiment=None, scaling=scaling))
    control = wanted.revisions["logistic"].name
    world.look(wanted)
    world.become(Health.READY, "logistic")
    world.look(wanted)
    assert world.is_at(State.DEPLOYING)
    world.wait(9 * MINUTE)
    world.servers[control] = dataclasses.replace(world.servers[control], replicas=25)  # the autoscaler's doing
    world.look(wanted)
    world.wait(9 * MINUTE)
    world.look(wanted)
    assert world.is_at(State.DEPLOYING)
    world.wait(2 * MINUTE)
    world.look(wanted)
    assert not world.is_at(State.DEPLOYING)
    assert world.record.run is not None
    assert world.record.run.decision is not None
    assert world.record.run.decision.reason == Reason.PROGRESS_DEADLINE_EXCEEDED


def test_control_keeps_the_capacity_to_take_everything_back_until_the_promotion_is_final() -> None:
    scaling = {"logistic": {"minReplicas": 1, "maxReplicas": 10}, "boosted": {"minReplicas": 1, "maxReplicas": 10}}
    wanted = experiment(scaling=scaling)
    world = World()
    world.settle(desired({}, roles={"logistic": "Control"}, experiment=None, scaling=scaling))
    name = wanted.revisions["logistic"].name
    world.servers[name] = dataclasses.replace(world.servers[name], replicas=8)  # the autoscaler's doing
    for minute in range(25):
        world.look(wanted)
        if minute > 2:
            assert world.servers[name].min_replicas == 8
        world.become(Health.READY)
        world.wait(MINUTE)
    boosted = world.servers[wanted.revisions["boosted"].name]
    assert (world.weight("boosted"), boosted.min_replicas) == (50, 4)
    world.analysis = PASS
    finish(world, wanted)
    assert world.servers[name].min_replicas == 8
    world.wait(61 * MINUTE)
    world.look(wanted)
    assert [server.min_replicas for server in world.servers.values()] == [1, 1]


def test_features_that_have_changed_keep_a_candidate_from_growing_and_are_no_failure() -> None:
    wanted = experiment()
    world = ramping(wanted)
    name = wanted.revisions["boosted"].name
    world.servers[name] = dataclasses.replace(world.servers[name], features="tail.delay is a string now")
    for _ in range(4):
        world.wait(11 * MINUTE)
        world.look(wanted)
        world.become(Health.READY)
    assert world.is_at(State.RAMPING)
    assert world.weight("boosted") == 10
    world.servers[name] = dataclasses.replace(world.servers[name], features=None)
    world.look(wanted, 2)
    assert world.weight("boosted") == 50


def test_a_winner_gets_as_many_replicas_as_control_has_come_to_have() -> None:
    wanted = experiment(scaling={name: {"minReplicas": 1, "maxReplicas": 12} for name in ("logistic", "boosted")})
    world = deciding(wanted)
    name = wanted.revisions["logistic"].name
    world.servers[name] = dataclasses.replace(world.servers[name], replicas=10)  # the autoscaler's doing
    asked = dataclasses.replace(wanted, request=f"promote boosted {SALT}")
    world.look(asked, 4)
    boosted = wanted.revisions["boosted"].name
    assert world.is_at(State.PROMOTING)
    assert (world.weight("boosted"), world.servers[boosted].min_replicas) == (50, 10)
    world.servers[name] = dataclasses.replace(world.servers[name], replicas=3)
    world.look(asked)
    assert world.servers[boosted].min_replicas == 10
    world.become(Health.READY)
    finish(world, asked)
    assert world.weight("boosted") == 100


def test_replicas_are_raised_before_the_weight_and_never_over_the_bound() -> None:
    scaling = {"logistic": {"minReplicas": 10, "maxReplicas": 10}, "boosted": {"minReplicas": 1, "maxReplicas": 4}}
    wanted = experiment(scaling=scaling)
    world = ramping(wanted)
    name = wanted.revisions["boosted"].name
    world.wait(10 * MINUTE)
    world.look(wanted)
    assert (world.weight("boosted"), world.servers[name].min_replicas) == (10, 4)
    assert world.servers[name].health is Health.REDUCED
    world.become(Health.READY)
    world.look(wanted)
    assert world.weight("boosted") == 50


def test_a_decided_experiment_never_runs_again() -> None:
    world = ramping()
    finish(world, experiment(request=f"abort {SALT}"))
    other = experiment(named="e2")
    for _ in range(3):
        world.look(other)
        world.become(Health.READY)
    assert world.weight("boosted") == 10
    world.look(experiment())
    world.wait(60 * MINUTE)
    world.look(experiment())
    assert world.record.run is None
    assert world.weight("boosted") == 0


def test_an_experiment_that_was_left_for_another_is_ended_and_remembered() -> None:
    world = deciding()
    world.look(experiment(named="e2"))
    assert (world.record.history[0].verdict, world.record.history[0].reason) == ("Rollback", "Superseded")
    assert world.record.decided == (SALT,)


def test_a_request_that_stood_before_a_run_began_is_not_its_own() -> None:
    candidate = canary("b").revisions["logistic"].name
    asked = canary("b", request=f"abort {candidate}")
    world = canarying()
    finish(world, asked)
    world.look(canary("a", request=f"abort {candidate}"))
    world.wait(61 * MINUTE)
    world.look(canary("a", request=f"abort {candidate}"))
    world.reconcile(asked)
    world.become(Health.READY)
    world.look(asked)
    assert (world.state, world.share(asked)) == (State.RAMPING, 10)
    world.look(canary("b", request=f"promote logistic {candidate}"))
    finish(world, canary("b", request=f"promote logistic {candidate}"))
    assert world.share(asked) == 100


def test_steps_may_be_added_while_an_experiment_runs_but_not_changed() -> None:
    more = experiment(steps(({"boosted": 10}, "10m"), ({"boosted": 50}, "10m"), ({"boosted": 70}, "10m")))
    refuse_breaking_edit(experiment(), more)
    for planned in (steps(({"boosted": 10}, None)), steps(({"boosted": 20}, "10m"), ({"boosted": 50}, "10m"))):
        with pytest.raises(EditRefused, match="the weights of its steps"):
            refuse_breaking_edit(experiment(), experiment(planned))
    world = deciding()
    world.look(more)
    assert world.weight("boosted") == 70
    world.look(experiment(steps(({"boosted": 5}, None))))  # no gate kept it out: nothing breaks
    assert world.weight("boosted") == 5


def test_a_change_of_pods_alone_keeps_phase_clock_and_observation() -> None:
    world, wanted = ramping(), experiment(resources={"boosted": {"cpu": "2"}})
    before = world.record.run
    world.wait(MINUTE)
    old = world.route.revision_of("boosted") if world.route else None
    for health in (Health.STARTING, Health.READY):
        if wanted.revisions["boosted"].name in world.servers:
            world.become(health)
        world.look(wanted)
        assert world.route
        assert world.route.observation
        assert world.weight("boosted") == 10
    assert world.route
    assert world.route.revision_of("boosted") == wanted.revisions["boosted"].name != old
    assert world.record.run == before
    assert world.record.phase
    assert world.record.phase.number == 0


def test_a_promotion_ends_the_experiment_first_and_keeps_everybody_who_is_in_the_winner() -> None:
    world = promoted()
    last = [(route.observation is not None, route.weight_bp("boosted")) for route in world.written[-3:]]
    assert last == [(True, 5000), (False, 5000), (False, 10_000)]


def test_two_treatments_ramp_and_promote_and_nobody_leaves_an_arm_that_grows() -> None:
    roles = {"logistic": "Control", "a": "Treatment", "b": "Treatment"}
    planned = steps(*(({"a": weight, "b": weight}, "10m") for weight in (10, 25, 50)))
    wanted = experiment(planned, roles=roles)
    world = World()
    world.analysis = Analysis(Verdict.PASS, "ObjectiveMet", "b")
    for _ in range(60):
        world.reconcile(wanted)
        world.become(Health.READY)
        world.wait(MINUTE)
    shares = [tuple(route.weight_bp(arm) for arm in ("a", "b", "logistic")) for route in world.written]
    assert list(dict.fromkeys(shares)) == [
        (0, 0, 10_000),
        (1000, 1000, 8000),
        (2500, 2500, 5000),
        (5000, 5000, 0),
        (0, 5000, 5000),
        (0, 10_000, 0),
    ]
    units = [f"N{number}" for number in range(2000)]
    for before, after in zip(world.written, world.written[1:], strict=False):
        assert_nobody_leaves_a_growing_arm(before, after, units)


def assert_nobody_leaves_a_growing_arm(before: Route, after: Route, units: list[str]) -> None:
    old, new = layout(before), layout(after)
    for arm in {destination.variant for destination in before.split}:
        if after.weight_bp(arm) >= before.weight_bp(arm) and arm != before.control.variant:
            for unit in units:
                if assign(unit, SALT, old) == arm:
                    assert assign(unit, SALT, new) == arm


def layout(route: Route) -> Layout:
    return Layout(tuple(Slice(d.variant, d.width_bp) for d in route.split if d.width_bp))


def test_a_canary_moves_by_its_steps_and_then_is_what_serves() -> None:
    world, wanted = canarying(), canary("b")
    world.wait(10 * MINUTE)
    world.look(wanted)
    assert (world.share(wanted), world.share(canary("a"))) == (50, 50)
    world.wait(10 * MINUTE)
    finish(world, wanted)
    assert (world.share(wanted), world.record.history[0].reason) == (100, "StepsCompleted")
    assert world.record.stable == wanted.revisions["logistic"]
    assert len(world.servers) == 2
    world.wait(61 * MINUTE)
    world.look(wanted)
    assert len(world.servers) == 1
    assert world.reconcile(wanted) == ()


def test_a_canary_that_follows_on_the_heels_of_the_first_revision_is_one() -> None:
    world = World()
    world.reconcile(canary("a"))
    world.become(Health.READY)
    world.reconcile(canary("a"))
    for _ in range(2):
        world.look(canary("b"))
        world.become(Health.READY)
    world.look(canary("b"))
    assert world.share(canary("b")) == 10


def test_a_canary_whose_last_step_has_no_hold_waits_for_somebody() -> None:
    planned = steps(({"logistic": 10}, None))
    wanted = canary("b", planned)
    world = World()
    world.settle(canary("a", planned))
    for _ in range(3):
        world.look(wanted)
        world.become(Health.READY)
    world.wait(600 * MINUTE)
    world.look(wanted)
    assert (world.state, world.share(wanted)) == (State.DECIDING, 10)
    finish(world, canary("b", planned, request=f"promote logistic {wanted.revisions['logistic'].name}"))
    assert world.share(wanted) == 100


def test_a_canary_goes_back_at_once_when_its_change_is_taken_back() -> None:
    world = canarying()
    world.reconcile(canary("a"))
    assert world.share(canary("a")) == 100
    world.look(canary("a"))
    assert (world.state, len(world.servers)) == (State.STABLE, 1)
    assert world.record.history[0].reason == "Superseded"


def test_a_revision_that_was_good_is_gone_back_to_at_once_while_it_is_kept() -> None:
    world, wanted = canarying(), canary("b")
    finish(world, canary("b", request=f"promote logistic {wanted.revisions['logistic'].name}"))
    assert world.share(wanted) == 100
    written = len(world.written)
    world.reconcile(canary("a"))
    assert [route.share_bp(canary("a").revisions["logistic"].name) for route in world.written[written:]] == [10_000]


def test_a_revision_that_was_rolled_back_is_not_trusted_for_being_warm() -> None:
    world, name = canarying(), canary("b").revisions["logistic"].name
    finish(world, canary("b", request=f"abort {name}"))
    world.look(canary("a"))
    world.look(canary("b"))
    assert (world.state, world.share(canary("b"))) == (State.RAMPING, 10)


def test_an_abort_after_a_canary_was_promoted_goes_back_to_what_it_replaced() -> None:
    world, name = canarying(), canary("b").revisions["logistic"].name
    finish(world, canary("b", request=f"promote logistic {name}"))
    world.look(canary("b", request=f"abort {name}"))
    assert (world.state, world.share(canary("a"))) == (State.STABLE, 100)
    world.wait(61 * MINUTE)
    world.look(canary("b", request=f"abort {name}"))
    assert [server.revision for server in world.servers.values()] == [canary("a").revisions["logistic"].name]


def test_a_failed_canary_gives_everything_back_and_is_not_started_again() -> None:
    world, wanted = canarying(), canary("b")
    name = wanted.revisions["logistic"].name
    world.servers[name] = dataclasses.replace(world.servers[name], health=Health.CRASHED)
    world.look(wanted)
    world.wait(2 * MINUTE)
    world.look(wanted)
    assert (world.state, world.share(canary("a"))) == (State.STABLE, 100)
    world.wait(61 * MINUTE)
    world.look(wanted)
    assert len(world.servers) == 1
    assert world.reconcile(wanted) == ()


def test_a_canary_may_lead_to_another_variant() -> None:
    world = World()
    world.settle(desired({}, roles={"old": "Control"}, experiment=None))
    wanted = canary("b")
    for _ in range(3):
        world.look(wanted)
        world.become(Health.READY)
    assert world.route
    assert (world.weight("old"), world.weight("logistic")) == (90, 10)


def test_a_single_model_is_replaced_in_one_write_without_a_strategy() -> None:
    roles = {"logistic": "Control"}
    world = World()
    world.settle(desired({}, roles=roles, experiment=None))
    changed = desired({}, roles=roles, experiment=None, digests={"logistic": "b"})
    world.reconcile(changed)
    written = len(world.written)
    world.become(Health.READY)
    world.look(changed)
    assert len(world.written) == written + 1
    assert world.share(changed) == 100
    assert len(world.servers) == 2
    world.wait(61 * MINUTE)
    world.look(changed)
    assert len(world.servers) == 1


def test_a_pause_moves_nothing_and_its_time_is_nobodys() -> None:
    world = ramping()
    world.wait(9 * MINUTE)
    world.look(experiment(paused=True))
    world.wait(600 * MINUTE)
    world.analysis = FAIL
    assert world.reconcile(experiment(paused=True, request=f"abort {SALT}")) == ()
    world.analysis = Analysis(Verdict.NO_DATA, "")
    world.look(experiment())
    assert world.weight("boosted") == 10
    world.wait(MINUTE)
    world.look(experiment())
    assert world.weight("boosted") == 50


def test_while_paused_what_dies_still_loses_its_weight_and_gets_it_back() -> None:
    world, paused = ramping(), experiment(paused=True)
    world.become(Health.CRASHED, "boosted")
    world.look(paused)
    assert world.weight("boosted") == 0
    world.become(Health.READY, "boosted")
    world.look(paused)
    assert world.weight("boosted") == 10


@pytest.mark.parametrize(
    "edited",
    [
        experiment(paused=True, named="e2"),
        desired({"boosted": 90}, paused=True),
        experiment(paused=True, digests={"boosted": "b"}, named="e3"),
        desired({}, roles={"logistic": "Control"}, paused=True, experiment=None),
    ],
)
def test_while_paused_an_edit_of_the_spec_waits(edited: Desired) -> None:
    world = ramping()
    world.look(experiment(paused=True))
    before = world.route
    assert world.reconcile(edited) == ()
    world.become(Health.CRASHED, "boosted")
    world.look(edited)
    assert world.weight("boosted") == 0
    assert world.route != before
    assert len(world.servers) == 2


def test_a_deployment_that_begins_paused_does_nothing() -> None:
    assert World().reconcile(experiment(paused=True)) == ()


def test_a_route_that_is_lost_comes_back_with_the_same_weights_and_the_step_is_held_anew() -> None:
    world, wanted = ramping(), experiment()
    before = world.route
    world.wait(9 * MINUTE)
    world.route = None
    world.look(wanted)
    assert world.route == before
    world.wait(9 * MINUTE)
    world.look(wanted)
    assert world.weight("boosted") == 10
    after = promoted()
    after.become(Health.CRASHED, "logistic")
    after.route = None
    after.look(wanted)
    assert after.weight("boosted") == 100


def test_a_lost_canary_route_is_not_written_onto_what_does_not_answer() -> None:
    world = canarying()
    base = canary("a").revisions["logistic"].name
    world.route = None
    world.servers[base] = dataclasses.replace(world.servers[base], health=Health.STARTING)
    world.look(canary("b"))
    assert world.route is None


def test_the_record_survives_being_written_down() -> None:
    for world in (ramping(), deciding(), promoted(), canarying(), World()):
        assert loaded(dumped(world.record)) == world.record
    assert loaded('{"release": "0.1.0"}') == Record("0.1.0")
    assert loaded("{") is None


def test_the_next_look_is_when_something_falls_due() -> None:
    world, wanted = ramping(), experiment()
    assert next_look_s(wanted, world.observed, world.record, world.now_s) == 10 * MINUTE
    world.become(Health.UNREADY, "boosted")
    world.look(wanted)
    assert next_look_s(wanted, world.observed, world.record, world.now_s) == pytest.approx(MINUTE)
    assert next_look_s(experiment(paused=True), world.observed, world.record, world.now_s) is None
    assert next_look_s(wanted, deciding().observed, deciding().record, 0.0) is None


def test_an_unproven_gateway_gets_no_split_and_a_filter_that_is_deleted_stops_the_observation() -> None:
    wanted = experiment()
    world = World(gateway_needs_filter=True)
    world.reconcile(wanted)
    world.become(Health.READY)
    world.look(wanted, 6)
    assert world.weight("boosted") == 10
    assert world.route
    assert world.route.observation
    world.filter = None
    world.reconcile(wanted)
    assert not world.written[-1].observation
    assert world.weight("boosted") == 10
    world.look(wanted)
    assert world.written[-1].observation
    assert world.is_at(State.RAMPING)


def test_hold_is_required_on_every_step_but_the_last() -> None:
    with pytest.raises(ValueError, match=r"required on every step but the last"):
        deployment(
            rollout={"strategy": "Experiment", "steps": steps(({"boosted": 1}, None), ({"boosted": 2}, None))},
            routing={"unit": {"header": "x-unit-id"}},
        )
