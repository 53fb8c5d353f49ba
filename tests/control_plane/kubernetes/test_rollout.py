"""One deployment from its creation to its end: what is written, in which order, and wherever the operator is killed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from support.cluster_world import Scene, alone, experiment, manual, routing, scene_of, variant
from support.gateway_stand_in import StandInGateway
from support.kube import Halt
from support.kube.fates import Ready

Turn = Callable[[Scene], None]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene_of(tmp_path, experiment()) as scene:
        yield scene


def created(scene: Scene) -> None:
    scene.laws.ramps = True


def a_while_later(scene: Scene) -> None:
    scene.clock.advance(1801)


def promoted(scene: Scene) -> None:
    scene.laws.ramps = False
    scene.annotate(request="promote boosted flights/delay/e1")


def aborted(scene: Scene) -> None:
    scene.laws.ramps = False
    scene.annotate(request="abort flights/delay/e1")


def kept_long_enough(scene: Scene) -> None:
    scene.clock.advance(601)


def paused(scene: Scene) -> None:
    scene.clock.advance(600)
    scene.annotate(paused="true")


def resumed(scene: Scene) -> None:
    scene.clock.advance(5000)
    scene.annotate(paused=None)


ROLLOUT: tuple[Turn, ...] = (created, a_while_later, promoted, kept_long_enough)
ROLLBACK: tuple[Turn, ...] = (created, aborted, kept_long_enough)
PAUSE: tuple[Turn, ...] = (created, paused, resumed, a_while_later, paused, resumed, promoted)


async def test_an_experiment_goes_by_its_steps_to_promotion(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        assert scene.weights == {"logistic": 90, "boosted": 10}
        assert scene.condition("Ready")[:2] == ("True", "AsSpecified")
        assert scene.status()["rollout"]["state"] == "Ramping"
        await life.wait(1799)
        assert scene.weights == {"logistic": 90, "boosted": 10}
        await life.wait(2)
        assert scene.weights == {"logistic": 50, "boosted": 50}
        promoted(scene)
        await life.rest()
        assert scene.weights == {"boosted": 100}
        assert scene.reason("Progressing") == "SpecBehind"
        boosted, logistic = scene.service("boosted"), scene.service("logistic")
        assert scene.laws.seen == [
            {boosted: 0, logistic: 10000},
            {boosted: 1000, logistic: 9000},
            {boosted: 5000, logistic: 5000},
            {boosted: 10000},
        ]


async def test_an_abort_gives_control_everything_back(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        aborted(scene)
        await life.rest()
        assert scene.weights == {"logistic": 100}
        assert scene.reason("Progressing") == "RolledBack"
        await life.wait(601)
        assert [name for kind, _, name in scene.ours() if kind == "InferenceService"] == [scene.service("logistic")]


async def test_what_is_made_for_an_experiment(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
    boosted, logistic = scene.service("boosted"), scene.service("logistic")
    assert scene.ours() == [
        ("ClusterStorageContainer", "", "fairlead-fetch"),
        ("ConfigMap", "flights", "delay-rollout"),
        ("DestinationRule", "flights", boosted),
        ("DestinationRule", "flights", logistic),
        ("EnvoyFilter", "istio-ingress", "fairlead-flights.delay"),
        ("InferenceService", "flights", boosted),
        ("InferenceService", "flights", logistic),
        ("NetworkPolicy", "flights", "delay"),
        ("PodDisruptionBudget", "flights", boosted),
        ("PodDisruptionBudget", "flights", logistic),
        ("Secret", "flights", "delay-serving"),
        ("ServingRuntime", "flights", "fairlead-0-3-1"),
        ("VirtualService", "flights", "delay"),
    ]
    writers = {record.call.manager for record in scene.server.writes}
    assert writers == {"fairlead"}


async def test_nothing_is_written_before_there_is_something_to_say(tmp_path: Path) -> None:
    async with scene_of(tmp_path, experiment()) as scene, scene.life() as life:
        await life.rest()
        order = [f"{w.call.verb} {w.call.plural}" for w in scene.server.writes]
        first = {what: order.index(what) for what in dict.fromkeys(order)}
        assert first["apply secrets"] < first["apply inferenceservices"]
        assert first["apply servingruntimes"] < first["apply inferenceservices"]
        assert first["patch modeldeployments"] < first["apply virtualservices"] < first["apply envoyfilters"]


@pytest.mark.parametrize("made", [experiment, manual, alone], ids=lambda made: made.__name__)
async def test_an_unchanged_world_is_not_written_to(made: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    async with scene_of(tmp_path, made()) as scene:
        async with scene.life() as life:
            await life.rest()
            scene.server.forget_requests()
            await life.look()
            assert scene.server.writes == []
        async with scene.life() as reborn:
            await reborn.look()
            await reborn.look()
            assert reborn.error is None
            assert scene.server.writes == []


@pytest.mark.parametrize("turns", [ROLLOUT, ROLLBACK, PAUSE], ids=["rollout", "rollback", "pause"])
async def test_killed_after_any_write_it_goes_on_to_the_same_world(turns: tuple[Turn, ...], scene: Scene) -> None:
    # Another operator knows only the world, so what one turn comes to decides about all that follow.
    deaths = 0
    for turn in turns:
        turn(scene)
        before = scene.snapshot()
        scene.server.forget_requests()
        async with scene.life() as life:
            await life.rest()
        expected, writes = scene.picture(), len(scene.server.writes)
        for number in range(1, writes + 1):
            scene.restore(before)
            halt = scene.server.halt_after(number)
            await rest_in_spite_of(scene, halt)
            assert halt.is_reached, (turn.__name__, number)
            assert scene.picture() == expected, f"{turn.__name__}: killed after write {number} of {writes}"
            deaths += 1
    assert deaths > 25


async def rest_in_spite_of(scene: Scene, halt: Halt) -> None:
    """Rest; if the world is halted on the way, kill the operator and let another go on."""
    if not halt.is_reached:
        await rest_until(scene, halt)
    async with scene.life() as reborn:
        await reborn.rest()


async def rest_until(scene: Scene, halt: Halt) -> None:
    """Rest, or die when the world is halted."""
    async with scene.life() as life:
        resting = asyncio.ensure_future(life.rest())
        halted = asyncio.ensure_future(halt.reached(60))
        await asyncio.wait({resting, halted}, return_when=asyncio.FIRST_COMPLETED)
        if resting.done():
            resting.result()
        for task in (resting, halted):
            task.cancel()
        await asyncio.wait({resting, halted})
    halt.resume()


async def test_killed_after_every_single_write_it_still_gets_there(tmp_path: Path) -> None:
    async with scene_of(tmp_path, experiment()) as scene:
        for turn in ROLLOUT:
            turn(scene)
            async with scene.life() as life:
                await life.rest()
        expected = scene.picture()
    async with scene_of(tmp_path, experiment()) as scene:
        deaths = 0
        for turn in ROLLOUT:
            turn(scene)
            for _ in itertools.count():
                halt = scene.server.halt_after(1)
                await rest_until(scene, halt)
                if not halt.is_reached:
                    break
                deaths += 1
        assert deaths > 30
        assert scene.picture() == expected


async def test_a_new_model_of_control_is_rolled_by_steps_without_a_gap(tmp_path: Path) -> None:
    canary = {"strategy": "Canary", "steps": [{"weights": {"logistic": 20}, "hold": "5m"}], "keepPrevious": "10m"}
    async with scene_of(tmp_path, alone(rollout=canary)) as scene, scene.life() as life:
        await life.rest()
        old = scene.service("logistic")
        scene.edit(variants=[variant("logistic", "Control", "b")])
        await life.rest()
        new = scene.service("logistic")
        assert scene.laws.seen[-1] == {new: 2000, old: 8000}
        await life.wait(301)
        assert scene.laws.seen[-1] == {new: 10000}
        await life.wait(601)
        assert [name for kind, _, name in scene.ours() if kind == "InferenceService"] == [new]
        assert "EnvoyFilter" not in {kind for kind, _, _ in scene.ours()}


async def test_a_new_model_replaces_control_at_once_where_nothing_else_is_asked_for(tmp_path: Path) -> None:
    async with scene_of(tmp_path, alone()) as scene, scene.life() as life:
        await life.rest()
        old = scene.service("logistic")
        scene.world.will("delay-logistic", Ready(after_s=5))
        scene.edit(variants=[variant("logistic", "Control", "b")])
        await life.rest()
        new = scene.service("logistic")
        assert new != old
        assert scene.laws.seen == [{old: 10000}, {new: 10000}]


async def test_a_change_of_pods_alone_keeps_the_arm(tmp_path: Path) -> None:
    async with scene_of(tmp_path, manual(30)) as scene, scene.life() as life:
        await life.rest()
        old = scene.service("boosted")
        more = {"requests": {"cpu": "2"}}
        scene.laws.ramps = True
        scene.edit(variants=[variant("logistic", "Control"), variant("boosted", "Treatment", resources=more)])
        scene.laws.ramps = False
        await life.rest()
        assert scene.weights == {"logistic": 70, "boosted": 30}
        assert scene.service("boosted") != old
        assert all(30 * 100 in weights.values() for weights in scene.laws.seen[1:])


async def test_two_gateways_in_two_namespaces_both_get_the_filter(tmp_path: Path) -> None:
    gateways = ["istio-ingress/public", "edge/inner"]
    async with scene_of(tmp_path) as scene, StandInGateway(scene.server, "inner", "edge").open() as inner:
        scene.server.create(manual(routing=routing(gateways=gateways)))
        async with scene.life() as life:
            await life.rest()
            filters = [place for place in scene.ours() if place[0] == "EnvoyFilter"]
            assert [namespace for _, namespace, _ in filters] == ["edge", "istio-ingress"]
            assert scene.weights == {"logistic": 90, "boosted": 10}
            assert inner.asked > 30
            scene.edit(routing=routing(gateways=gateways[:1]))
            await life.rest()
            assert [namespace for kind, namespace, _ in scene.ours() if kind == "EnvoyFilter"] == ["istio-ingress"]
            assert scene.weights == {"logistic": 90, "boosted": 10}


async def test_a_gateway_in_the_deployments_own_namespace(tmp_path: Path) -> None:
    async with scene_of(tmp_path) as scene, StandInGateway(scene.server, "own", "flights").open():
        scene.server.create(experiment(routing=routing(gateways=["flights/own"])))
        scene.gateway.obeys = False
        scene.laws.gateway = StandInGateway(scene.server, "own", "flights")
        async with scene.life() as life:
            await life.rest()
            assert scene.weights == {"logistic": 90, "boosted": 10}
            assert life.error is None


async def test_a_gateway_that_draws_by_chance_gets_no_weight_and_says_so(scene: Scene) -> None:
    scene.gateway.obeys = False
    async with scene.life() as life:
        await life.rest()
        assert scene.weights == {"logistic": 100}
        assert scene.condition("RoutingReady")[:2] == ("False", "GatewayRefused")
        assert "NetworkPolicy" in {kind for kind, _, _ in scene.ours()}
        scene.gateway.obeys = True
        await life.rest()
        assert scene.weights == {"logistic": 90, "boosted": 10}
