"""What a deployment leaves behind: nothing, and it leaves in good order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fairlead_operator.platforms.kubernetes.kinds import FINALIZER
from fairlead_operator.runtime.keys import ObjectKey
from support.cluster_world import DELAY, Life, Scene, alone, experiment, manual, routing, scene_of
from support.kube import Refuse, calls

TAXIS = ObjectKey("taxis", "fares")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene_of(tmp_path, experiment()) as scene:
        yield scene


def delete(scene: Scene, key: ObjectKey = DELAY) -> None:
    scene.server.delete("ModelDeployment", key.namespace, key.name)


async def gone(scene: Scene, life: Life) -> None:
    """Check that all of it has gone."""
    assert scene.server.get("ModelDeployment", "flights", "delay") is None
    await scene.world.settle()
    await life.sweep()
    assert scene.ours() == []
    assert scene.server.objects("Pod", "flights") == []


async def test_weights_leave_first_then_the_filter_then_the_route(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        scene.server.forget_requests()
        delete(scene)
        await life.look()
        done = [(w.call.verb, w.call.plural) for w in scene.server.writes]
        assert done == [
            ("apply", "virtualservices"),
            ("delete", "envoyfilters"),
            ("delete", "virtualservices"),
            ("patch", "modeldeployments"),
        ]
        assert list(scene.laws.seen[-1].values()) == [10000]
        await gone(scene, life)


async def test_a_deployment_without_a_split_has_no_finalizer(tmp_path: Path) -> None:
    async with scene_of(tmp_path, alone()) as scene, scene.life() as life:
        await life.rest()
        live = scene.server.get("ModelDeployment", "flights", "delay") or {}
        assert "finalizers" not in live["metadata"]
        delete(scene)
        await life.rest()
        await gone(scene, life)


@pytest.mark.parametrize("number", range(1, 5))
async def test_killed_while_it_leaves_it_leaves_all_the_same(number: int, scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        delete(scene)
        scene.server.faults.inject(Refuse(500), calls("write"), times=50, skip=number)
        await life.look()
        scene.server.faults.clear()
    async with scene.life() as reborn:
        await reborn.rest()
        await gone(scene, reborn)


async def test_deleted_while_no_operator_runs(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
    delete(scene)
    await scene.world.settle()
    assert scene.weights == {"logistic": 90, "boosted": 10}
    async with scene.life() as reborn:
        await reborn.rest()
        await gone(scene, reborn)


async def test_a_namespace_that_goes_is_not_held_up(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        scene.server.delete("Namespace", "", "flights")
        for _ in range(4):
            await scene.world.settle()
            await life.look()
        await scene.world.settle()
        await life.sweep()
        assert scene.server.get("Namespace", "", "flights") is None
        assert scene.ours() == []


async def test_a_namespace_that_goes_before_anything_was_made(tmp_path: Path) -> None:
    async with scene_of(tmp_path, experiment()) as scene, scene.life() as life:
        await life.look()
        scene.server.delete("Namespace", "", "flights")
        for _ in range(4):
            await scene.world.settle()
            await life.look()
        await life.sweep()
        await scene.world.settle()
        assert scene.server.get("Namespace", "", "flights") is None
        assert scene.ours() == []


async def test_deleted_after_istio_has_gone(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        for kind in ("virtualservices", "envoyfilters", "destinationrules", "gateways"):
            scene.server.unregister(f"{kind}.networking.istio.io")
        delete(scene)
        await life.rest()
        assert life.error is None
        assert scene.server.get("ModelDeployment", "flights", "delay") is None


async def test_deleted_before_the_store_knows_that_istio_has_gone(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        delete(scene)
        life.see()
        for kind in ("virtualservices", "envoyfilters", "destinationrules", "gateways"):
            scene.server.unregister(f"{kind}.networking.istio.io")
        await life.act()
        await life.rest()
        assert scene.server.get("ModelDeployment", "flights", "delay") is None


async def test_an_invalid_deployment_can_be_deleted(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        scene.break_spec()
        delete(scene)
        await life.rest()
        await gone(scene, life)


async def test_what_stands_beside_a_gateway_without_an_owner_is_swept(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        # Somebody took the documented way out while no operator ran.
        scene.server.patch("ModelDeployment", "flights", "delay", {"metadata": {"finalizers": None}})
        delete(scene)
        await scene.world.settle()
        assert [kind for kind, _, _ in scene.ours()] == ["ClusterStorageContainer", "EnvoyFilter", "ServingRuntime"]
    async with scene.life() as reborn:
        await gone(scene, reborn)


async def test_a_sweep_leaves_what_another_operator_serves(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
    async with scene.life(namespaces=("taxis",)) as other:
        other.see()
        other.store.remove(next(one for one in other.store.kinds if one.kind.kind == "ModelDeployment").kind, DELAY)
        for sweep in other.control.sweeps:
            await sweep()
    assert ("EnvoyFilter", "istio-ingress", "fairlead-flights.delay") in scene.ours()


async def test_a_sweep_believes_the_api_rather_than_its_own_copy(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        life.see()
        life.store.remove(next(one for one in life.store.kinds if one.kind.kind == "ModelDeployment").kind, DELAY)
        before = scene.ours()
        for sweep in life.control.sweeps:
            await sweep()
        assert scene.ours() == before


async def test_a_runtime_that_no_model_uses_any_more_is_swept(tmp_path: Path) -> None:
    async with scene_of(tmp_path, alone(rollout={"keepPrevious": "1m"})) as scene, scene.life() as life:
        await life.rest()
        scene.edit(serving={"release": "0.3.2"})
        await life.rest()
        await life.wait(61)
        await life.sweep()
        scene.clock.advance(700)
        await life.sweep()
        assert [name for kind, _, name in scene.ours() if kind == "ServingRuntime"] == ["fairlead-0-3-2"]


async def test_one_goes_and_its_neighbours_stay_as_they_are(tmp_path: Path) -> None:
    other = manual(20, "fares", routing=routing("fares"))
    other["metadata"]["namespace"] = "taxis"
    near = alone("price", routing=routing("price"))
    async with scene_of(tmp_path, experiment(), other, near) as scene, scene.life() as life:
        keys = (DELAY, TAXIS, ObjectKey("flights", "price"))
        await life.rest(*keys)
        theirs = {place: told for place, told in scene.picture().items() if "delay" not in place[2]}
        assert any(place[:2] == ("EnvoyFilter", "istio-ingress") for place in theirs)
        delete(scene)
        await life.rest(*keys)
        await life.sweep()
        assert scene.picture() == theirs


async def test_made_anew_under_the_same_name_it_works(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        delete(scene)
        await life.look()
        scene.server.create(experiment())
        await life.rest()
        assert scene.weights == {"logistic": 90, "boosted": 10}
        live = scene.server.get("ModelDeployment", "flights", "delay") or {}
        assert live["metadata"]["finalizers"] == [FINALIZER]
        assert scene.condition("Ready")[:2] == ("True", "AsSpecified")


async def test_its_host_goes_to_who_has_waited_for_it(scene: Scene) -> None:
    scene.clock.advance(5)
    second = alone("second", routing=routing("delay"))
    scene.server.create(second)
    key = ObjectKey("flights", "second")
    async with scene.life() as life:
        await life.rest(DELAY, key)
        assert scene.reason("RoutingReady", key) == "HostConflict"
        assert scene.server.get("VirtualService", "flights", "second") is None
        delete(scene)
        await life.rest(DELAY)
        assert key in life.woken
        await life.rest(DELAY, key)
        assert scene.reason("RoutingReady", key) == "AsSpecified"
        assert scene.server.get("VirtualService", "flights", "second") is not None
