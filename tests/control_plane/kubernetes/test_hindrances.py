"""What goes wrong in one place stops only what depends on it, and weight is withdrawn all the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fairlead_operator.errors import OperatorError
from support.cluster_world import Scene, experiment, manual, routing, scene_of, variant
from support.kube import Refuse, calls
from support.kube.fates import NeverReady

CLAIMED = routing(unit={"jwtClaim": "sub", "header": "x-jwt-sub"})


def authentication(scene: Scene) -> dict[str, Any]:
    rule = {"issuer": "https://id.example", "outputClaimToHeaders": [{"claim": "sub", "header": "x-jwt-sub"}]}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "jwt", "namespace": "istio-ingress"},
        "spec": {"selector": {"matchLabels": scene.gateway.labels}, "jwtRules": [rule]},
    }


def admitted(scene: Scene) -> list[str]:
    """Return the namespaces that may reach the servers."""
    policy = scene.server.get("NetworkPolicy", "flights", "delay")
    assert policy
    peers = policy["spec"]["ingress"][0]["from"]
    return [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in peers]


def servers(scene: Scene) -> int:
    return len(scene.server.objects("InferenceService"))


def given_away(scene: Scene, kind: str, namespace: str, name: str) -> None:
    """Let somebody else have an object of ours."""
    ours = scene.server.get(kind, namespace, name)
    assert ours
    theirs = copy.deepcopy(ours)
    scene.server.delete(kind, namespace, name)
    where = {"namespace": namespace} if namespace else {}
    theirs["metadata"] = {"name": name, "labels": {"app": "theirs"}, **where}
    scene.server.create(theirs)


async def test_a_gateway_whose_pods_are_gone_for_a_moment_stays_guarded(tmp_path: Any) -> None:
    async with scene_of(tmp_path, experiment(routing=CLAIMED)) as scene, scene.life() as life:
        scene.server.create(authentication(scene))
        await life.rest()
        before = scene.weights, admitted(scene)
        scene.server.delete("Pod", "istio-ingress", "public-0")
        await life.wait(31)
        assert scene.reason("RoutingReady") == "GatewayNotFound"
        assert (scene.weights, admitted(scene)) == before
        assert scene.server.get("AuthorizationPolicy", "istio-ingress", "fairlead-flights.delay")


async def test_no_weight_grows_behind_a_gateway_that_is_gone(tmp_path: Any) -> None:
    async with scene_of(tmp_path, experiment()) as scene, scene.life() as life:
        await life.rest()
        before = scene.weights
        scene.server.delete("Pod", "istio-ingress", "public-0")
        await life.wait(31)
        await life.wait(1900)
        assert scene.weights == before


async def test_a_treatment_that_is_refused_keeps_nobody_else_from_serving(tmp_path: Any) -> None:
    variants = [variant("boosted", "Treatment"), variant("logistic", "Control")]
    async with scene_of(tmp_path, experiment(variants=variants)) as scene, scene.life() as life:
        refusal = Refuse(403, "Forbidden", 'admission webhook "quota" denied the request: no')
        scene.server.faults.inject(
            refusal,
            lambda call: call.is_write and call.plural == "inferenceservices" and "boosted" in (call.name or ""),
            times=10_000,
        )
        await life.rest()
        await life.rest()
        assert servers(scene) == 1
        assert scene.weights == {"logistic": 100}
        assert isinstance(life.error, OperatorError)
        assert "denied the request" in scene.condition("VariantsReady")[2]


async def test_a_gateway_that_does_not_obey_keeps_no_server_from_being_made(tmp_path: Any) -> None:
    async with scene_of(tmp_path, manual(10)) as scene, scene.life() as life:
        await life.rest()
        before = servers(scene)
        scene.gateway.obeys = False
        scene.server.delete("EnvoyFilter", "istio-ingress", "fairlead-flights.delay")
        scene.edit(variants=[variant("logistic", "Control", digest="c"), variant("boosted", "Treatment")])
        await life.look()
        assert servers(scene) > before


@pytest.mark.parametrize("lost", ["PodDisruptionBudget", "ClusterStorageContainer"])
async def test_a_dead_treatment_loses_its_weight_whatever_else_is_wrong(tmp_path: Any, lost: str) -> None:
    async with scene_of(tmp_path, experiment()) as scene, scene.life() as life:
        scene.laws.forgives_losses = True
        await life.rest()
        boosted = scene.service("boosted")
        if lost == "PodDisruptionBudget":
            given_away(scene, lost, "flights", boosted)
        else:
            given_away(scene, lost, "", "fairlead-fetch")
        await life.rest()
        assert life.error is not None
        scene.world.will(boosted, NeverReady())
        await life.rest()
        assert life.again_s is not None
        assert life.again_s <= 10
        await life.wait(11)
        assert scene.weights == {"logistic": 100}


async def test_what_cannot_be_read_is_told(tmp_path: Any) -> None:
    async with scene_of(tmp_path, experiment()) as scene, scene.life() as life:
        scene.server.faults.inject(Refuse(403, "Forbidden"), calls("list", "pods"), times=10_000)
        await life.rest()
        assert scene.reason("RoutingReady") == "RefusedByApi"
        assert servers(scene) == 2


async def test_no_server_ends_in_the_pass_that_takes_its_weight(tmp_path: Any) -> None:
    async with scene_of(tmp_path, manual(10)) as scene, scene.life() as life:
        await life.rest()
        scene.edit(variants=[variant("logistic", "Control")], rollout={"strategy": "Manual", "weights": None})
        await life.look()
        assert scene.weights == {"logistic": 100}
        assert servers(scene) == 2
        await life.rest()
        assert servers(scene) == 1
