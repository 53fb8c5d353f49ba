"""Rollouts in a real cluster: a single model rolled forward under load, and an operator that dies in mid-ramp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import pytest

from fairlead_operator.platforms.kubernetes.kinds import MODEL_DEPLOYMENT
from support import figures
from support.cluster_deployments import MODEL_NAME, Deployed
from support.cluster_scene import CONTROL, FIRST, NAME, SECOND, Scene
from support.gateway_load import Load

UNITS = [f"unit-{number}" for number in range(1000)]
CANARY = {
    "strategy": "Canary",
    "steps": [{"weights": {CONTROL: 20}, "hold": "2s"}, {"weights": {CONTROL: 60}, "hold": "2s"}],
    "keepPrevious": "1s",
}
REPLACE = {"strategy": "Manual", "keepPrevious": "1s"}
RAMP = {
    "strategy": "Experiment",
    "steps": [{"weights": {FIRST: 10}, "hold": "3s"}, {"weights": {FIRST: 50}, "hold": "1h"}, {"weights": {FIRST: 90}}],
}


@pytest.fixture(scope="module")
def single(shared_scene: Scene) -> Iterator[Deployed]:
    """A deployment of one model."""
    deployed = _single(shared_scene, "logistic", CANARY)
    deployed.wait_condition("Ready")
    yield deployed
    deployed.delete()


def test_a_canary_rolls_a_model_forward_under_load_without_a_lost_request(scene: Scene, single: Deployed) -> None:
    before = _revision(single)
    with _load(single) as load:
        _single(scene, "next", CANARY)
        single.wait(lambda: single.status()["rollout"]["stable"] not in {None, before})
        single.wait_condition("Ready")
    after = _revision(single)
    seen = [route.share_bp(after) for route in scene.writes.routes(single.name)]
    figures.note("canary-under-load", requests=len(load.samples), lost=len(load.lost))
    assert load.lost == []
    assert [share for share, then in pairwise([*seen, -1]) if share != then] == [0, 2000, 6000, 10000]


def test_a_changed_model_replaces_the_one_before_under_load_without_a_lost_request(
    scene: Scene, single: Deployed
) -> None:
    before = _revision(single)
    _single(scene, "next", REPLACE)
    single.wait_condition("Ready")
    with _load(single) as load:
        _single(scene, "last", REPLACE)
        single.wait(lambda: _revision(single) != before)
        single.wait_condition("Ready")
        single.wait(lambda: len(single.pods()) == 1)
    figures.note("replace-under-load", requests=len(load.samples), lost=len(load.lost))
    assert load.lost == []
    (report,) = single.reports().values()
    assert report.model_digest == scene.stage.digests["last"]


def test_what_is_not_part_of_a_model_starts_no_pod(scene: Scene) -> None:
    deployed = scene.deploy(rollout={"strategy": "Manual", "weights": {FIRST: 10}}, second="Shadow")
    deployed.wait_condition("Ready")
    pods = set(deployed.pods())
    deployed.api.patch(
        MODEL_DEPLOYMENT, deployed.namespace, NAME, {"metadata": {"labels": {"team": "a"}, "annotations": {"a": "b"}}}
    )
    scene.deploy(rollout={"strategy": "Manual", "weights": {FIRST: 30, SECOND: 20}}, routing={"timeout": "3s"})
    deployed.wait_weights(**{FIRST: 30, SECOND: 20})
    manifest = scene.manifest(rollout={"strategy": "Manual", "weights": {FIRST: 30, SECOND: 20}})
    for variant in manifest["spec"]["variants"]:
        variant["scaling"] = {"minReplicas": 1, "maxReplicas": 3, "target": {"cpuPercent": 95}}
    scene.stage.apply(manifest)
    deployed.wait_condition("Ready")
    assert set(deployed.pods()) == pods


def test_an_operator_killed_in_mid_ramp_goes_on_where_it_was(scene: Scene) -> None:
    deployed = scene.deploy(rollout=RAMP, experiment={"id": "killed"}, second="Shadow")
    deployed.wait_weights(**{FIRST: 10})
    scene.operator.kill()
    before = deployed.route()
    scene.operator.start()
    deployed.wait_weights(**{FIRST: 50})
    routes = [route for route in scene.writes.routes(NAME) if route.salt == f"{deployed.namespace}/{NAME}/killed"]
    weights = [route.weight_bp(FIRST) for route in routes]
    assert before in routes
    assert [weight for weight, then in pairwise([*weights, -1]) if weight != then] == [0, 1000, 5000]
    deployed.request("abort")
    deployed.wait_weights(**{FIRST: 0})


def test_a_status_wiped_in_mid_ramp_is_told_again_and_moves_nobody(scene: Scene) -> None:
    deployed = scene.deploy(rollout=RAMP, experiment={"id": "wiped"}, second="Shadow")
    deployed.wait_weights(**{FIRST: 50})
    deployed.wait(lambda: _in_force(deployed, step=1))
    told, before = deployed.status(), deployed.route()
    deployed.api.patch(MODEL_DEPLOYMENT, deployed.namespace, NAME, {"status": None}, "status")
    deployed.wait(lambda: deployed.status().get("rollout") == told["rollout"], 20)
    assert deployed.status()["experiment"] == told["experiment"]
    assert deployed.route() == before
    salt, routes = f"{deployed.namespace}/{NAME}/wiped", list(scene.writes.routes(NAME))
    assert [route.weight_bp(FIRST) for route in routes if route.salt == salt][-1] == 5000


def _in_force(deployed: Deployed, *, step: int) -> bool:
    """Return whether a step is told with the time from which its weights are in force: no more is to be told of it."""
    rollout = deployed.status()["rollout"]
    return rollout["step"] == step and "stepStartedAt" in rollout


def _single(scene: Scene, model: str, rollout: Mapping[str, Any]) -> Deployed:
    variants = [scene.stage.variant(CONTROL, model=model)]
    return scene.stage.apply(scene.stage.manifest("single", variants, rollout=rollout))


def _load(deployed: Deployed) -> Load:
    return Load(deployed.address, deployed.host, MODEL_NAME, UNITS, connections=4, pause_s=0.05)


def _revision(deployed: Deployed) -> str:
    """Return the revision that serves what no candidate has."""
    route = deployed.route()
    assert route is not None
    return route.control.revision
