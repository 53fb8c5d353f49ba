"""Rollouts under everything at once: edits, ailing servers, crashes, lost memory, requests, and the passing of time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fairlead_operator.core.desired import Desired, desired_from, refuse_breaking_edit
from fairlead_operator.core.goal import goal_of
from fairlead_operator.core.observed import Filter, Health
from fairlead_operator.core.record import State
from fairlead_operator.core.rollout import NO_DATA, Analysis, Verdict
from fairlead_operator.errors import EditRefused
from support.world import World, canary, deployment, experiment, steps

MINUTE = 60.0
PERCENT = st.sampled_from([0, 1, 10, 25, 33.33])
HOLDS = st.sampled_from(["1s", "10m", "3h"])
ANALYSES = st.sampled_from(
    [
        NO_DATA,
        Analysis(Verdict.INSUFFICIENT, "TooFew"),
        Analysis(Verdict.FAIL, "GuardrailFailed"),
        Analysis(Verdict.PASS, "ObjectiveMet", "b"),
        Analysis(Verdict.PASS, "ObjectiveMet", "c"),
    ]
)
ARMS = st.sampled_from([("b",), ("b", "c"), ("b", "c", "d")])


@st.composite
def specs(draw: st.DrawFn) -> Desired:
    """Draw what a deployment might ask for."""
    strategy = draw(st.sampled_from(["Manual", "Canary", "Experiment"]))
    arms = draw(ARMS) if strategy != "Canary" else ()
    roles = {"a": "Control", **dict.fromkeys(arms, "Treatment"), **({"s": "Shadow"} if draw(st.booleans()) else {})}
    moving = arms or ("a",)
    guarded = strategy == "Canary" and draw(st.booleans())
    percent = st.sampled_from([1, 10, 25, 33.33]) if guarded else PERCENT
    planned = [
        {"weights": {arm: draw(percent) for arm in moving}, "hold": draw(HOLDS)} for _ in range(draw(st.integers(1, 3)))
    ]
    if draw(st.booleans()):
        del planned[-1]["hold"]
    rollout = {
        "onSuccess": draw(st.sampled_from(["Promote", "Hold"])),
        "onFailure": draw(st.sampled_from(["Rollback", "Hold"])),
        "keepPrevious": draw(st.sampled_from(["1s", "1h"])),
        "strategy": strategy,
        **({"weights": planned[0]["weights"]} if strategy == "Manual" else {"steps": planned}),
    }
    observed = strategy == "Experiment" or (strategy == "Manual" and draw(st.booleans()))
    guardrail = {"metric": "error", "margin": draw(st.sampled_from(["1pp", "2pp"]))}
    canary_block = {"guardrails": [guardrail]} if guarded else None
    made = deployment(
        roles=roles,
        experiment=draw(st.sampled_from(["e1", "e2", "e3"])) if observed else canary_block,
        digests={name: draw(st.sampled_from("ab")) for name in roles},
        resources={name: {"cpu": draw(st.sampled_from(["1", "2"]))} for name in roles},
        scaling={name: {"minReplicas": draw(st.integers(1, 3)), "maxReplicas": 4} for name in roles},
        rollout=rollout,
        routing={"unit": {"header": "x-unit-id"}},
    )
    return desired_from(made, "0.1.0")


class Rollouts(RuleBasedStateMachine):
    """``World`` asserts at each action what must always hold; here is what must hold over time."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.wanted = experiment()

    @initialize(wanted=specs(), needs_filter=st.booleans())
    def begin(self, wanted: Desired, needs_filter: bool) -> None:
        self.world = World(gateway_needs_filter=needs_filter)
        self.world.registers = True
        self.wanted = wanted

    @rule()
    def lose_the_ledger(self) -> None:
        self.world.registers = not self.world.registers

    @rule(wanted=specs())
    def edit(self, wanted: Desired) -> None:
        try:
            refuse_breaking_edit(self.wanted, wanted)
        except EditRefused:
            return
        self.wanted = wanted

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.wanted = dataclasses.replace(self.wanted, paused=paused)

    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        run = self.world.record.run.id if self.world.record.run else "none"
        words = [f"abort {run}", *(f"promote {arm} {run}" for arm in self.wanted.arms), None]
        self.wanted = dataclasses.replace(self.wanted, request=data.draw(st.sampled_from(words)))

    @rule(seconds=st.sampled_from([0.5, 30, 11 * MINUTE, 61 * MINUTE]))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    @rule(analysis=ANALYSES)
    def analyse(self, analysis: Analysis) -> None:
        self.world.analysis = analysis

    @rule(stop_after=st.sampled_from([None, None, None, 0, 1, 2]))
    def reconcile(self, stop_after: int | None) -> None:
        """Advance, plan and act; perhaps die in between."""
        world, before = self.world, self.world.route
        world.reconcile(self.wanted, stop_after=stop_after)
        run, after = world.record.run, world.route
        if before is None or after is None or run is None or before.salt != after.salt or world.observed.mismatched:
            return
        planned = goal_of(self.wanted, world.record).weights_bp
        for arm in self.wanted.treatments:
            if after.weight_bp(arm) < before.weight_bp(arm) and after.weight_bp(arm) != planned.get(arm):
                named = before.revision_of(arm)
                assert not world.observed.answers(named), f"units leave {arm} though it answers and should not shrink"

    @rule()
    def go_well(self) -> None:
        """Let all servers be well and the events of it be seen."""
        self.world.become(Health.READY)
        self.world.look(self.wanted, 2)

    @rule()
    def go_on(self) -> None:
        """Let a step pass."""
        for _ in range(2):
            self.go_well()
        self.world.wait(4 * 60 * MINUTE)
        self.go_well()

    @rule(seconds=st.sampled_from([1, 61]), times=st.integers(1, 4))
    @precondition(lambda self: self.wanted.treatments)
    def come_and_go(self, seconds: float, times: int) -> None:
        """Let a treatment be out of traffic."""
        for _ in range(times):
            self.world.become(Health.UNREADY, self.wanted.treatments[0])
            self.world.look(self.wanted, 2)
            self.world.wait(seconds)
            self.world.look(self.wanted, 1)
            self.go_well()

    @rule(health=st.sampled_from(list(Health)), data=st.data())
    @precondition(lambda self: self.world.servers)
    def ail(self, health: Health, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.world.servers)))
        self.world.servers[name] = dataclasses.replace(self.world.servers[name], health=health)

    @rule()
    def lose_the_record(self) -> None:
        self.world.lose_record()

    @rule()
    @precondition(lambda self: self.world.filter is not None and self.world.filter.law != "*")
    def delete_the_filter(self) -> None:
        self.world.filter = None

    @rule()
    def delete_the_route(self) -> None:
        self.world.route = None

    @rule(broken=st.sampled_from([False, False, False, True]))
    def count_mismatches(self, *, broken: bool) -> None:
        self.world.mismatched = "some units are elsewhere" if broken and self.wanted.experiment_id else None

    @invariant()
    def an_experiment_is_observed_only_by_plan(self) -> None:
        route, run = self.world.route, self.world.record.run
        if route is not None and route.observation is not None and run is not None and run.id == route.salt:
            assert route.observation.phase <= max(run.step, 0)

    @invariant()
    def a_canary_is_told_of_with_the_arms_of_its_design(self) -> None:
        route, run = self.world.route, self.world.record.run
        if route is None or route.observation is None or run is None or run.id != route.salt:
            return
        named = {route.observation.arm(one) for one in route.split if one.width_bp}
        assert named == {piece.arm for piece in route.observation.layout.slices}
        assert run.comparison is None or named == set(run.comparison.design.arms)

    def teardown(self) -> None:
        """Let everything be well from here on: it must converge."""
        world = self.world
        world.mismatched, world.analysis, world.registers = None, NO_DATA, True
        wanted = dataclasses.replace(self.wanted, paused=False, request=None)
        for _ in range(40):
            world.become(Health.READY)
            world.look(wanted, 2)
            world.wait(4 * 60 * MINUTE)
        assert world.reconcile(wanted) == (), world.record.run
        assert world.route is not None
        named = {destination.revision for destination in world.route.split if destination.width_bp}
        assert all(world.observed.answers(name) for name in named)
        assert world.state in {State.STABLE, State.DECIDING}, world.record.run
        spec = {revision.name for revision in wanted.revisions.values()}
        stable = {world.record.stable.name} if world.record.stable else set()
        assert set(world.servers) <= spec | stable, "something is left running"


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def experiment_to_its_promotion(world: World, reconcile: Callable[[Desired], None]) -> None:
    """Ramp an experiment in two steps and promote it."""
    wanted = experiment()
    world.analysis = Analysis(Verdict.PASS, "ObjectiveMet", "boosted")
    for _ in range(16):
        reconcile(wanted)
        world.become(Health.READY)
        world.wait(5.5 * MINUTE)


def canary_to_its_promotion(
    world: World, reconcile: Callable[[Desired], None], block: Mapping[str, Any] | None = None
) -> None:
    """Ramp a new revision of a single model in two steps."""
    planned = steps(({"logistic": 10}, "10m"), ({"logistic": 50}, "10m"))
    for index in range(18):
        reconcile(canary("a" if index < 3 else "b", planned, experiment=block))
        world.become(Health.READY)
        world.wait(5.5 * MINUTE)


def guarded_canary_to_its_promotion(world: World, reconcile: Callable[[Desired], None]) -> None:
    """Ramp the same, with a guardrail that nothing speaks against."""
    world.registers = True
    canary_to_its_promotion(world, reconcile, {"guardrails": [{"metric": "error", "margin": "1pp"}]})


@pytest.mark.parametrize("needs_filter", [False, True])
@pytest.mark.parametrize(
    "story", [experiment_to_its_promotion, canary_to_its_promotion, guarded_canary_to_its_promotion]
)
def test_dying_after_any_single_action_of_a_rollout_ends_in_the_same_world(
    story: Callable[[World, Callable[[Desired], None]], None], needs_filter: bool
) -> None:
    def told(die_at: int | None, *, forget: bool = False) -> World:
        world = World(gateway_needs_filter=needs_filter)

        def reconcile(wanted: Desired) -> None:
            for _ in range(3):
                left = None if die_at is None or len(world.done) >= die_at else die_at - len(world.done)
                world.reconcile(wanted, stop_after=left)
                if forget and left is not None and len(world.done) == die_at:
                    world.lose_record()

        story(world, reconcile)
        return world

    whole = told(None)
    assert whole.state is State.STABLE
    for die_at in range(1, len(whole.done) + 1):
        for forget in (False, True):
            ended = told(die_at, forget=forget)
            assert ended.state is State.STABLE, (die_at, forget)
            assert ended.route == whole.route, (die_at, forget)
            assert ended.filter == whole.filter, (die_at, forget)
            assert {n: s.min_replicas for n, s in ended.servers.items()} == {
                n: s.min_replicas for n, s in whole.servers.items()
            }, (die_at, forget)


def test_a_filter_that_was_written_for_another_law_is_none() -> None:
    assert not Filter("another", proven=True).obeys("law")
