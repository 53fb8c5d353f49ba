"""Objects that somebody else changes, removes, or has made before us."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.cluster_world import Scene, experiment, scene_of
from support.kube import ApiError

Place = tuple[str, str, str]

OBJECTS = (
    "ClusterStorageContainer fairlead-fetch",
    "ConfigMap delay-rollout",
    "DestinationRule delay-boosted-a1bee191",
    "EnvoyFilter fairlead-flights.delay",
    "InferenceService delay-boosted-a1bee191",
    "InferenceService delay-logistic-9dbfc25c",
    "NetworkPolicy delay",
    "PodDisruptionBudget delay-logistic-9dbfc25c",
    "Secret delay-serving",
    "ServingRuntime fairlead-0-3-1",
    "VirtualService delay",
)
"""One of each kind in the list of what is made, both roles where roles matter."""


def place_of(scene: Scene, text: str) -> Place:
    """Return the place of an object; a revision's hash may be another by now."""
    kind, name = text.split()
    stem = name.rpartition("-")[0] if "boosted" in name or "logistic" in name else name
    return next(place for place in scene.ours() if place[0] == kind and place[2].startswith(stem))


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene_of(tmp_path, experiment()) as scene:
        scene.laws.forgives_losses = True
        yield scene


@pytest.mark.parametrize("text", OBJECTS)
async def test_what_is_deleted_by_hand_comes_back(text: str, scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        before, place = scene.picture(records=False), place_of(scene, text)
        life.woken.clear()
        scene.server.delete(*place)
        await scene.world.settle()
        life.see()
        assert life.woken or place[0] == "Secret", "nobody would have looked"
        await life.wait(31)  # Secrets are not watched
        assert scene.picture(records=False) == before
        assert scene.weights == {"logistic": 90, "boosted": 10}


@pytest.mark.parametrize("text", OBJECTS)
async def test_what_is_edited_by_hand_is_put_right(text: str, scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        before, place = scene.picture(records=False), place_of(scene, text)
        edited = 0
        for patch in edits(scene.server.get(*place) or {}):
            try:
                scene.server.patch(*place, patch)
            except ApiError:  # the API itself refuses this one
                continue
            edited += 1
            scene.clock.advance(31)
            await life.rest()
            assert scene.picture(records=False) == before, patch
        assert edited >= 3


def edits(live: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a change of each label, annotation, and part of the content that is ours, and its removal."""
    for name in live["metadata"]["labels"]:
        yield {"metadata": {"labels": {name: None}}}
        yield {"metadata": {"labels": {name: "somebody-else"}}}
    for name in live["metadata"].get("annotations", {}):
        yield {"metadata": {"annotations": {name: None}}}
    if live["metadata"].get("ownerReferences"):
        yield {"metadata": {"ownerReferences": None}}
    spared = {"container"} if live["kind"] == "ClusterStorageContainer" else set()  # its image is that of its birth
    for group in ("spec", "data"):
        for name, value in live.get(group, {}).items():
            if name not in spared:
                yield {group: {name: altered(value)}}
                if name not in {"containers", "predictor"}:  # KServe requires them
                    yield {group: {name: None}}


def altered(value: Any) -> Any:
    """Return something like ``value`` that says something else."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}x"
        case [first, *rest]:
            return rest or [altered(first)]
        case dict():
            name = next(iter(value))
            return {name: altered(value[name])}
    return value


@pytest.mark.parametrize("text", [text for text in OBJECTS if "Secret" not in text])
async def test_what_others_add_stays(text: str, scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        place = place_of(scene, text)
        added = {"labels": {"team": "ranking"}, "annotations": {"example.org/note": "ours"}}
        scene.server.patch(*place, {"metadata": {**added, "finalizers": None}}, manager="kubectl")
        first = next(iter(scene.server.get(*place)["metadata"]["labels"]))  # type: ignore[index]
        scene.server.patch(*place, {"metadata": {"labels": {first: "broken"}}}, manager="kubectl")
        await life.rest()
        live = scene.server.get(*place) or {}
        assert live["metadata"]["labels"]["team"] == "ranking"
        assert live["metadata"]["labels"][first] != "broken"
        assert live["metadata"]["annotations"]["example.org/note"] == "ours"


async def test_fields_of_others_stay(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        scene.server.patch("VirtualService", "flights", "delay", {"spec": {"exportTo": ["*"]}}, manager="mesh")
        scene.server.patch("VirtualService", "flights", "delay", {"spec": {"hosts": ["x"]}}, manager="mesh")
        await life.rest()
        spec = (scene.route or {})["spec"]
        assert (spec["exportTo"], spec["hosts"]) == (["*"], ["delay.example.org"])


@pytest.mark.parametrize("text", OBJECTS)
async def test_a_namesake_of_somebody_else_is_never_taken_over(text: str, tmp_path: Path) -> None:
    async with scene_of(tmp_path, experiment()) as scene, scene.life() as life:
        await life.rest()
        expected, place = scene.picture(records=False), place_of(scene, text)
        model = scene.server.get(*place) or {}
    foreign: dict[str, Any] = {
        name: model[name] for name in ("apiVersion", "kind", "spec", "data", "type") if name in model
    }
    foreign["metadata"] = {"name": place[2], "namespace": place[1], "labels": {"app": "theirs"}}
    async with scene_of(tmp_path, experiment(), prepare=lambda server: server.create(foreign)) as scene:
        kept = content(scene, place)
        async with scene.life() as life:
            await life.rest()
            assert content(scene, place) == kept
            told = [one for one in scene.status()["conditions"] if one["reason"] == "ForeignObject"]
            assert told
            assert place[2] in told[0]["message"]
            assert scene.condition("Ready")[0] == "False"
            await life.rest()
            assert content(scene, place) == kept
            scene.server.delete(*place)
            await life.wait(31)
            assert scene.picture(records=False) == expected
            assert scene.condition("Ready")[:2] == ("True", "AsSpecified")
            assert scene.weights == {"logistic": 90, "boosted": 10}


def content(scene: Scene, place: Place) -> object:
    """Return what an object says, apart from what KServe adds to its own, and who has ever written to it."""
    live = scene.server.get(*place) or {}
    meta = live["metadata"]
    owners, writers = meta.get("ownerReferences"), {one["manager"] for one in meta["managedFields"]}
    return meta["labels"], meta.get("annotations"), owners, live.get("spec"), live.get("data"), "fairlead" in writers
