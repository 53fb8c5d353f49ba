"""What a status tells of a rollout, in each of its states."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fairlead_operator.api.conditions import Condition, ConditionType, Reason
from fairlead_operator.api.v1alpha1 import Status, Url
from fairlead_operator.core.observed import Health
from fairlead_operator.core.record import State
from fairlead_operator.core.rollout import Analysis, Verdict
from fairlead_operator.core.status import Surroundings, status_of
from support.world import CANARY, RAMP, World, deployment, desired, steps

UNIT = {"unit": {"header": "x-unit-id"}}
EXPERIMENT: dict[str, Any] = {"rollout": {"strategy": "Experiment", "steps": RAMP}, "routing": UNIT}
RUN = "flights/arrival-delay/e1"


def status(world: World, **spec: Any) -> Status:
    around = Surroundings(url=Url(rest="http://x", grpc="x"), now_s=world.now_s)
    return status_of(deployment(**spec), desired(**spec), world.observed, world.record, around)


def condition(told: Status, kind: ConditionType) -> Condition:
    return next(condition for condition in told.conditions if condition.type is kind)


def come_to(state: State, *, ready: bool = True, **spec: Any) -> World:
    """Return a world whose rollout has come to ``state``."""
    world, wanted = World(), desired(**spec)
    for _ in range(60):
        world.reconcile(wanted)
        if world.is_at(state):
            return world
        world.become(Health.READY, *([] if ready else ["logistic"]))
        world.wait(60)
        if world.is_at(State.DECIDING):
            world.analysis = Analysis(Verdict.PASS, "ObjectiveMet", "boosted")
    raise AssertionError(f"did not come to {state}")


@pytest.mark.parametrize(
    ("state", "reason", "says"),
    [
        (State.PENDING, Reason.STARTING, "waiting for control to answer"),
        (State.DEPLOYING, Reason.STARTING, "waiting for the candidates to be ready"),
        (State.RAMPING, Reason.RAMPING, "step 1 of 2: 10"),
        (State.DECIDING, Reason.DECIDING, "step 2 of 2: 50; `fairlead promote arrival-delay boosted` or"),
        (State.PROMOTING, Reason.PROMOTING, "the winner takes over: 50"),
        (State.STABLE, Reason.SPEC_BEHIND, "boosted was promoted; make it the Control in the spec"),
    ],
)
def test_progress_tells_the_state_and_what_comes_next(state: State, reason: Reason, says: str) -> None:
    world = come_to(state, ready=state is not State.DEPLOYING, **EXPERIMENT)
    told = condition(status(world, **EXPERIMENT), ConditionType.PROGRESSING)
    assert told.reason is reason
    assert told.message.startswith(says)


def test_a_rollout_is_told_with_step_weights_decision_and_history() -> None:
    world = come_to(State.RAMPING, **EXPERIMENT)
    world.look(desired(**EXPERIMENT))
    told = status(world, **EXPERIMENT).rollout
    assert (told.state, told.step, told.weight, told.decision) == ("Ramping", 0, "10", None)
    assert told.step_started_at is not None
    world = come_to(State.STABLE, **EXPERIMENT)
    whole = status(world, **EXPERIMENT)
    assert whole.rollout.decision
    assert (whole.rollout.decision.verdict, whole.rollout.decision.variant) == ("Promote", "boosted")
    assert [(past.verdict, past.reason) for past in whole.history] == [("Promote", "ObjectiveMet")]


def test_a_failure_under_hold_is_told_with_its_reason() -> None:
    spec = {**EXPERIMENT, "rollout": {"strategy": "Experiment", "steps": RAMP, "onFailure": "Hold"}}
    world = come_to(State.RAMPING, **spec)
    world.analysis = Analysis(Verdict.FAIL, "GuardrailFailed")
    world.look(desired(**spec))
    told = condition(status(world, **spec), ConditionType.PROGRESSING)
    assert "Hold (GuardrailFailed); `fairlead promote" in told.message


def test_a_rolled_back_rollout_says_to_change_the_spec() -> None:
    world = come_to(State.RAMPING, **EXPERIMENT)
    asked = {**EXPERIMENT, "request": f"abort {RUN}"}
    for _ in range(3):
        world.look(desired(**asked))
    told = status(world, **asked)
    assert condition(told, ConditionType.PROGRESSING).reason is Reason.ROLLED_BACK
    assert condition(told, ConditionType.READY).status == "False"
    assert condition(told, ConditionType.VARIANTS_READY).status == "True"


def test_an_experiment_that_was_decided_before_is_told_to_be_over() -> None:
    world = come_to(State.STABLE, **EXPERIMENT)
    other = {**EXPERIMENT, "experiment": "e2"}
    world.look(desired(**other))
    world.look(desired(**EXPERIMENT))
    told = condition(status(world, **EXPERIMENT), ConditionType.PROGRESSING)
    assert told.reason is Reason.ROLLED_BACK
    assert "e1 was decided before and never runs again; choose a new experiment.id" in told.message


def test_a_canary_is_told_by_revision_while_it_lasts() -> None:
    spec: dict[str, Any] = {
        "roles": {"logistic": "Control"},
        "experiment": None,
        "rollout": {"strategy": "Canary", "steps": CANARY},
    }
    world = come_to(State.STABLE, **spec)
    assert status(world, **spec).rollout.candidate is None
    changed = {**spec, "digests": {"logistic": "b"}}
    for _ in range(3):
        world.look(desired(**changed))
        world.become(Health.READY)
    told = status(world, **changed).rollout
    assert (told.candidate, told.weight) == (desired(**changed).revisions["logistic"].name, "10")
    assert told.stable == desired(**spec).revisions["logistic"].name


def test_many_treatments_with_long_names_fit_the_status() -> None:
    names = [f"{letter}{'x' * 20}" for letter in "abcdefgh"]
    spec: dict[str, Any] = {
        "roles": {"logistic": "Control", **dict.fromkeys(names, "Treatment")},
        "rollout": {"strategy": "Experiment", "steps": steps((dict.fromkeys(names, 12.25), None))},
        "routing": UNIT,
    }
    world = come_to(State.RAMPING, **spec)
    assert len(status(world, **spec).rollout.weight or "") <= 64


@pytest.mark.parametrize(
    ("least", "says"), [(2, "has 1 of 2 replicas"), (1, "has 1 replicas available, and more are starting")]
)
def test_replicas_that_are_missing_are_told_by_what_wants_them(least: int, says: str) -> None:
    world, spec = World(), {"scaling": {"logistic": {"minReplicas": least, "maxReplicas": 4}}}
    world.settle(desired(**spec))
    name = desired(**spec).revisions["logistic"].name
    world.servers[name] = dataclasses.replace(world.servers[name], health=Health.REDUCED, replicas=1)
    told = condition(status(world, **spec), ConditionType.VARIANTS_READY)
    assert f"{name} {says}" in told.message
