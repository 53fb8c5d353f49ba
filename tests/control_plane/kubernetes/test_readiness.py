"""What pods do, and what becomes of weights and conditions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.cluster_world import Scene, experiment, manual, scene_of, variant
from support.kube.fates import Crash, Fate, ImageAbsent, InitFailure, NeverReady, Ready, Unschedulable

BOTH = {"logistic": 90.0, "boosted": 10.0}


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    two: dict[str, Any] = {"scaling": {"minReplicas": 2, "maxReplicas": 6}}
    variants = [variant("logistic", "Control", **two), variant("boosted", "Treatment", **two)]
    async with scene_of(tmp_path, experiment(variants=variants)) as scene:
        yield scene


@pytest.mark.parametrize("name", ["logistic", "boosted"])
async def test_scaling_up_and_down_moves_nobody(name: str, scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        route = scene.route
        for replicas, fate in ((5, NeverReady()), (5, Ready()), (2, Ready())):
            scene.world.will(scene.service(name), Ready())
            await scene.world.settle()
            for pod in scene.world.pods(scene.service(name)):
                scene.world.will(pod["metadata"]["name"], Ready())
            scene.world.will(scene.service(name), fate)
            scene.world.load(scene.service(name), replicas)
            await life.wait(60)
            assert scene.weights == BOTH
        assert scene.route == route


@pytest.mark.parametrize("name", ["logistic", "boosted"])
@pytest.mark.parametrize("how", ["deleted", "evicted"])
async def test_the_loss_of_one_pod_moves_nobody(name: str, how: str, scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        route = scene.route
        one, other = scene.world.pods(scene.service(name))
        scene.world.will(other["metadata"]["name"], Ready())
        scene.world.will(scene.service(name), Ready(after_s=30))
        if how == "deleted":
            scene.server.delete("Pod", "flights", one["metadata"]["name"])
        else:
            scene.world.evict(one)
        await life.rest()
        assert scene.reason("VariantsReady") == "Reduced"
        assert scene.condition("Ready")[0] == "True"
        await life.wait(15)
        await life.wait(31)
        assert scene.reason("VariantsReady") == "AsSpecified"
        assert scene.route == route


async def test_a_treatment_without_pods_loses_its_weight_after_a_grace_and_gets_it_back(scene: Scene) -> None:
    scene.laws.forgives_losses = True
    async with scene.life() as life:
        await life.rest()
        scene.world.will(scene.service("boosted"), NeverReady())
        await life.rest()
        assert scene.weights == BOTH
        assert life.again_s is not None
        assert life.again_s <= 10
        await life.wait(9.5)
        assert scene.weights == BOTH
        await life.wait(1)
        assert scene.weights == {"logistic": 100}
        assert scene.reason("RoutingReady") == "WeightWithdrawn"
        assert scene.reason("ExperimentHealthy") == "NotObserving"
        scene.world.will(scene.service("boosted"), Ready())
        await life.rest()
        assert scene.weights == BOTH
        assert scene.reason("ExperimentHealthy") == "Observing"


async def test_a_short_loss_of_all_pods_moves_nobody(scene: Scene) -> None:
    scene.laws.forgives_losses = True
    async with scene.life() as life:
        await life.rest()
        route = scene.route
        scene.world.will(scene.service("boosted"), NeverReady())
        await life.wait(5)
        scene.world.will(scene.service("boosted"), Ready())
        await life.wait(5)
        assert scene.route == route


async def test_an_operator_that_starts_while_nothing_answers_waits_out_the_grace(scene: Scene) -> None:
    scene.laws.forgives_losses = True
    async with scene.life() as life:
        await life.rest()
    scene.world.will(scene.service("boosted"), NeverReady())
    scene.clock.advance(60)
    async with scene.life() as reborn:
        await reborn.rest()
        assert scene.weights == BOTH
        await reborn.wait(11)
        assert scene.weights == {"logistic": 100}


async def test_control_keeps_its_share_though_it_has_gone(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        scene.world.will(scene.service("logistic"), NeverReady())
        await life.wait(60)
        await life.wait(60)
        assert scene.weights == BOTH
        assert scene.reason("RoutingReady") == "Degraded"
        assert scene.condition("Ready")[0] == "False"
        assert scene.condition("Servable")[0] == "True"
        scene.world.will(scene.service("logistic"), Ready())
        await life.wait(60)
        assert scene.condition("Ready")[:2] == ("True", "AsSpecified")


@pytest.mark.parametrize(
    ("fate", "reason", "told"),
    [
        (ImageAbsent(), "PodsBlocked", "not found"),
        (Crash(3, "model digest differs: expected sha256:aaaa"), "ModelRefused", "model digest differs"),
        (Crash(1, "out of memory"), "Crashed", "ended with 1: out of memory"),
        (InitFailure(1, "s3://models/boosted.onnx: access denied"), "ModelUnavailable", "access denied"),
        (InitFailure(3, "digest is sha256:ffff"), "ModelUnavailable", "digest is sha256:ffff"),
        (Unschedulable(), "PodsBlocked", "Insufficient cpu"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
async def test_why_a_treatment_does_not_come_up_is_told_at_once_and_control_serves(
    fate: Fate, reason: str, told: str, tmp_path: Path
) -> None:
    async with scene_of(tmp_path, manual(30)) as scene, scene.life() as life:
        await life.look()
        scene.world.will(scene.service("boosted"), fate)
        await scene.world.settle()
        await life.look()
        status, given, message = scene.condition("VariantsReady")
        assert (status, given) == ("False", reason)
        assert told in message
        await life.rest()
        assert scene.weights == {"logistic": 100}
        failure = next(one for one in scene.status()["variants"] if one["name"] == "boosted")["lastFailure"]
        assert told in failure["message"]
        assert scene.condition("Ready")[1] == reason
        scene.world.will(scene.service("boosted"), Ready())
        await life.wait(1)
        assert scene.weights == {"logistic": 70, "boosted": 30}


async def test_pods_that_a_quota_forbids_are_told_of(tmp_path: Path) -> None:
    async with scene_of(tmp_path, manual(30)) as scene, scene.life() as life:
        await life.rest()
        scene.world.will(scene.service("boosted"), NeverReady())
        await life.wait(20)
        name = f"{scene.service('boosted')}-predictor"
        why = 'pods "x" is forbidden: exceeded quota: compute'
        deployment = scene.server.get("Deployment", "flights", name) or {}
        failed = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": why}
        status = {**deployment["status"], "conditions": [failed]}
        scene.server.set_status("Deployment", "flights", name, status)
        await life.look()
        assert scene.condition("VariantsReady")[1] == "PodsBlocked"
        assert "exceeded quota" in scene.condition("VariantsReady")[2]


async def test_what_kserve_refuses_is_told(tmp_path: Path) -> None:
    async with scene_of(tmp_path, manual(30)) as scene, scene.life() as life:
        await life.look()
        scene.world.kserve.is_up = False
        told = {"reason": "RuntimeNotRecognized", "message": "no runtime"}
        status = {"modelStatus": {"transitionStatus": "InvalidSpec", "lastFailureInfo": told, "states": {}}}
        scene.server.set_status("InferenceService", "flights", scene.service("boosted"), status)
        await life.look()
        condition = scene.condition("VariantsReady")
        assert condition[1] in {"PodsBlocked", "Starting"}
        scene.server.set_status("InferenceService", "flights", scene.service("logistic"), status)
        await life.look()
        assert scene.condition("VariantsReady")[1] == "PodsBlocked"
        assert "RuntimeNotRecognized" in scene.condition("VariantsReady")[2]


async def test_a_revision_that_is_never_ready_is_late_after_the_progress_deadline(tmp_path: Path) -> None:
    async with scene_of(tmp_path, experiment()) as scene, scene.life() as life:
        await life.look()
        scene.world.will(scene.service("boosted"), NeverReady())
        await life.rest()
        assert scene.status()["rollout"]["state"] == "Deploying"
        assert life.again_s == pytest.approx(600, abs=2)
        await life.wait(601)
        assert scene.reason("Progressing") == "RolledBack"
        assert "ProgressDeadlineExceeded" in scene.condition("Progressing")[2]
        assert scene.weights == {"logistic": 100}
        assert len(scene.laws.seen) == 1


async def test_a_treatment_that_fails_in_mid_ramp_costs_control_nothing(scene: Scene) -> None:
    scene.laws.forgives_losses = True
    async with scene.life() as life:
        await life.rest()
        control = scene.server.get("InferenceService", "flights", scene.service("logistic"))
        scene.world.will(scene.service("boosted"), Crash(1, "segfault"))
        await life.rest()
        await life.wait(11)
        await life.wait(700)
        assert scene.weights == {"logistic": 100}
        assert scene.reason("Progressing") == "RolledBack"
        after = scene.server.get("InferenceService", "flights", scene.service("logistic"))
        assert (control or {})["spec"] == (after or {})["spec"]
        assert scene.condition("Servable")[0] == "True"


async def test_what_kserve_says_of_itself_is_not_believed(tmp_path: Path) -> None:
    async with scene_of(tmp_path, manual(30)) as scene, scene.life() as life:
        await life.look()
        scene.world.will(scene.service("boosted"), NeverReady())
        await life.rest()
        ready = [{"type": kind, "status": "True"} for kind in ("Ready", "PredictorReady", "IngressReady")]
        states = {"activeModelState": "Loaded", "targetModelState": "Loaded"}
        scene.world.kserve.is_up = False
        scene.server.set_status(
            "InferenceService",
            "flights",
            scene.service("boosted"),
            {"conditions": ready, "modelStatus": {"states": states, "transitionStatus": "UpToDate"}},
        )
        await life.rest()
        assert scene.weights == {"logistic": 100}


async def test_no_weight_before_as_many_pods_as_the_share_needs(tmp_path: Path) -> None:
    four: dict[str, Any] = {"scaling": {"minReplicas": 4, "maxReplicas": 8}}
    variants = [variant("logistic", "Control", **four), variant("boosted", "Treatment")]
    variants[1]["scaling"] = {"minReplicas": 1, "maxReplicas": 8}
    async with scene_of(tmp_path, experiment(variants=variants)) as scene, scene.life() as life:
        await life.rest()
        assert len(scene.world.pods(scene.service("boosted"))) == 1
        scene.world.will(scene.service("boosted"), NeverReady())
        for pod in scene.world.pods(scene.service("boosted")):
            scene.world.will(pod["metadata"]["name"], Ready())
        await life.wait(1801)
        assert len(scene.world.pods(scene.service("boosted"))) == 2
        assert scene.weights == BOTH
        scene.world.will(scene.service("boosted"), Ready())
        await life.rest()
        assert scene.weights == {"logistic": 50, "boosted": 50}
