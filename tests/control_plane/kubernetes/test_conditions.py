"""What stands in a deployment's way: told as a condition, and over by itself once it is gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fairlead_operator.runtime.keys import ObjectKey
from support.cluster_world import Scene, alone, experiment, manual, routing, scene_of, variant
from support.kube import Refuse, calls, feast_kinds, istio_kinds, kserve_kinds
from support.kube.fates import NeverReady

BOTH = {"logistic": 90.0, "boosted": 10.0}
TWO = {"minReplicas": 2, "maxReplicas": 2}
STATUS = calls("write", "modeldeployments", subresource="status")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene_of(tmp_path, experiment()) as scene:
        yield scene


def kept(scene: Scene) -> Any:
    return (scene.server.get("ConfigMap", "flights", "delay-rollout") or {})["data"]


async def test_kserve_may_come_later(scene: Scene) -> None:
    for kind in kserve_kinds():
        scene.server.unregister(kind.resource)
    async with scene.life() as life:
        await life.rest()
        assert scene.reason("VariantsReady") == "KServeMissing"
        assert scene.reason("Ready") == "KServeMissing"
        assert life.error is None
        scene.server.register(*kserve_kinds())
        await life.rest()
        assert scene.weights == BOTH
        assert scene.condition("Ready")[0] == "True"


async def test_istio_may_come_later(scene: Scene) -> None:
    gone = [kind for kind in istio_kinds() if kind.group.startswith("networking")]
    for kind in gone:
        scene.server.unregister(kind.resource)
    async with scene.life() as life:
        await life.rest()
        assert scene.reason("RoutingReady") == "IstioMissing"
        assert {kind for kind, _, _ in scene.ours()} >= {"InferenceService", "NetworkPolicy", "Secret"}
        assert life.error is None
        scene.server.register(*gone)
        await life.rest()
        assert scene.weights == BOTH
        assert scene.condition("Ready")[0] == "True"


async def test_istio_that_goes_and_comes_again(scene: Scene) -> None:
    gone = [kind for kind in istio_kinds() if kind.group.startswith("networking")]
    async with scene.life() as life:
        await life.rest()
        for kind in gone:
            scene.server.unregister(kind.resource)
        await life.rest()
        assert scene.reason("RoutingReady") == "IstioMissing"
        scene.server.register(*gone)
        await life.rest()
        assert scene.weights == BOTH
        assert scene.condition("Ready")[0] == "True"


async def test_a_feature_store_of_feasts_operator(tmp_path: Path) -> None:
    store = {"featureStoreRef": {"name": "rides"}}
    made = {"apiVersion": "feast.dev/v1", "kind": "FeatureStore", "metadata": {"name": "rides", "namespace": "flights"}}
    async with scene_of(tmp_path, alone(featureStore=store)) as scene, scene.life() as life:
        for kind in feast_kinds():
            scene.server.unregister(kind.resource)
        await life.rest()
        assert scene.reason("FeaturesReady") == "FeatureStoreNotFound"
        assert "not installed" in scene.condition("FeaturesReady")[2]
        scene.server.register(*feast_kinds())
        await life.rest()
        assert "make it" in scene.condition("FeaturesReady")[2]
        scene.server.create({**made, "spec": {"feastProject": "rides"}})
        await life.rest()
        assert "not ready" in scene.condition("FeaturesReady")[2]
        scene.server.set_status("FeatureStore", "flights", "rides", {"phase": "Ready"})
        await life.rest()
        assert "ConfigMap feast-rides-client" in scene.condition("FeaturesReady")[2]
        meta = {"name": "feast-rides-client", "namespace": "flights"}
        scene.server.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {}})
        assert life.again_s is not None
        await life.wait(life.again_s)
        assert scene.reason("FeaturesReady") == "FeaturesUnknown"
        assert scene.condition("Ready")[0] == "True"


async def test_the_gateway_may_come_later(scene: Scene) -> None:
    for made in scene.gateway.objects():
        scene.server.delete(made["kind"], "istio-ingress", "public" if made["kind"] != "Pod" else "public-0")
    async with scene.life() as life:
        await life.rest()
        assert scene.reason("RoutingReady") == "GatewayNotFound"
        assert scene.weights == {"logistic": 100}
        scene.gateway.install()
        assert life.again_s is not None or life.error is not None
        await life.wait(60)
        assert scene.weights == BOTH


async def test_of_two_with_one_host_the_older_has_it(scene: Scene) -> None:
    scene.clock.advance(10)
    second = ObjectKey("flights", "second")
    scene.server.create(manual(20, "second", routing=routing("delay")))
    async with scene.life() as life:
        await life.rest(second)
        await life.rest(second, ObjectKey("flights", "delay"))
        assert scene.weights == BOTH
        assert scene.reason("RoutingReady", second) == "HostConflict"
        assert scene.server.get("VirtualService", "flights", "second") is None
        life.woken.clear()
        scene.edit(routing=routing("other"), experiment={"id": "e2"})
        await life.rest()
        assert second in life.woken
        await life.rest(second)
        assert scene.reason("RoutingReady", second) == "AsSpecified"


SECOND = ObjectKey("flights", "second")
DELAY = ObjectKey("flights", "delay")


def hosts_of(scene: Scene, key: ObjectKey) -> list[str]:
    found = scene.server.get("VirtualService", key.namespace, key.name)
    return found["spec"]["hosts"] if found else []


async def test_an_edit_takes_no_host_of_a_younger_deployment_that_is_reached_there(tmp_path: Path) -> None:
    async with scene_of(tmp_path, manual()) as scene, scene.life() as life:
        scene.clock.advance(10)
        scene.server.create(manual(20, "second"))
        await life.rest(DELAY, SECOND)
        life.woken.clear()
        scene.edit(routing=routing("delay", hosts=["delay.example.org", "second.example.org"]))
        await life.rest()
        assert SECOND in life.woken
        await life.rest(DELAY, SECOND)
        assert (hosts_of(scene, DELAY), hosts_of(scene, SECOND)) == (["delay.example.org"], ["second.example.org"])
        assert scene.condition("RoutingReady")[:2] == ("False", "HostConflict")
        assert "second.example.org belongs to ModelDeployment flights/second" in scene.condition("RoutingReady")[2]
        assert scene.reason("RoutingReady", SECOND) == "AsSpecified"
        scene.world.will(scene.service("boosted"), NeverReady())
        await life.rest()
        await life.wait(60)
        assert scene.weights == {"logistic": 100}
        life.woken.clear()
        scene.server.delete("ModelDeployment", "flights", "second")
        await life.rest(SECOND)
        assert DELAY in life.woken
        await life.rest()
        assert hosts_of(scene, DELAY) == ["delay.example.org", "second.example.org"]


async def test_a_deployment_whose_every_host_is_anothers_leaves_its_gateway(tmp_path: Path) -> None:
    async with scene_of(tmp_path, manual()) as scene, scene.life() as life:
        scene.clock.advance(10)
        scene.server.create(manual(20, "second"))
        await life.rest(DELAY, SECOND)
        seen = len(scene.laws.seen)
        scene.edit(routing=routing("second"))
        await life.rest(DELAY, SECOND)
        assert hosts_of(scene, DELAY) == []
        assert {sum(width > 0 for width in weights.values()) for weights in scene.laws.seen[seen:]} <= {1}
        assert scene.reason("RoutingReady") == "HostConflict"
        assert ("EnvoyFilter", "istio-ingress", "fairlead-flights.delay") not in scene.ours()
        scene.edit(routing=routing("delay"))
        await life.rest(DELAY, SECOND)
        assert hosts_of(scene, DELAY) == ["delay.example.org"]
        assert scene.weights == BOTH


async def test_names_that_are_too_long_for_kserve(tmp_path: Path) -> None:
    namespace = "a-namespace-with-a-name-of-forty-letters"
    made = alone()
    made["metadata"]["namespace"] = namespace
    key = ObjectKey(namespace, "delay")
    async with scene_of(tmp_path) as scene, scene.life() as life:
        scene.server.add_namespace(namespace)
        scene.server.create(made)
        await life.rest(key)
        assert scene.reason("VariantsReady", key) == "NameTooLong"
        assert scene.server.objects("InferenceService") == []


def jwt(scene: Scene, claim: str = "sub") -> dict[str, Any]:
    rule = {"issuer": "https://id.example", "outputClaimToHeaders": [{"claim": claim, "header": "x-jwt-sub"}]}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "jwt", "namespace": "istio-ingress"},
        "spec": {"selector": {"matchLabels": scene.gateway.labels}, "jwtRules": [rule]},
    }


async def test_a_claim_that_the_platform_does_not_copy(tmp_path: Path) -> None:
    reached = routing(unit={"jwtClaim": "sub", "header": "x-jwt-sub"})
    async with scene_of(tmp_path, experiment(routing=reached)) as scene, scene.life() as life:
        scene.server.create(jwt(scene, "email"))
        await life.rest()
        assert scene.reason("RoutingReady") == "UnitClaimUnavailable"
        assert scene.weights == {"logistic": 100}
        life.woken.clear()
        scene.server.apply(jwt(scene))
        life.see()
        assert life.woken
        await life.rest()
        assert scene.weights == BOTH
        assert ("AuthorizationPolicy", "istio-ingress", "fairlead-flights.delay") in scene.ours()
        scene.server.delete("RequestAuthentication", "istio-ingress", "jwt")
        await life.rest()
        assert scene.weights == {"logistic": 100}
        scene.server.delete("ModelDeployment", "flights", "delay")
        await life.rest()
        await life.sweep()
        assert scene.ours() == []


async def test_nobody_is_split_by_a_claim_while_forged_units_are_not_refused(tmp_path: Path) -> None:
    reached = routing(unit={"jwtClaim": "sub", "header": "x-jwt-sub"})
    async with scene_of(tmp_path, experiment(routing=reached)) as scene, scene.life() as life:
        scene.server.create(jwt(scene))
        scene.server.faults.inject(Refuse(403, "Forbidden"), calls("write", "authorizationpolicies"), times=10_000)
        await life.rest()
        assert scene.weights == {"logistic": 100}
        assert scene.reason("RoutingReady") == "RefusedByApi"
        scene.server.faults.clear()
        await life.rest()
        assert scene.weights == BOTH
        policy = scene.server.get("AuthorizationPolicy", "istio-ingress", "fairlead-flights.delay")
        assert policy is not None
        principals = [source["source"] for rule in policy["spec"]["rules"] for source in rule.get("from", ())]
        assert principals == [{"notRequestPrincipals": ["https://id.example/*"]}] * 2


async def test_faults_only_where_the_namespace_allows_them(tmp_path: Path) -> None:
    faults = {"abort": {"percent": 5, "status": 503}}
    async with scene_of(tmp_path, alone(routing=routing(fault=faults))) as scene, scene.life() as life:
        await life.rest()
        assert scene.reason("RoutingReady") == "FaultNotAllowed"
        assert not any("fault" in route for route in (scene.route or {})["spec"]["http"])
        labels = {"metadata": {"labels": {"serving.fairlead.dev/fault-injection": "allowed"}}}
        scene.server.patch("Namespace", "", "flights", labels)
        assert life.again_s is not None
        await life.wait(life.again_s)
        assert scene.reason("RoutingReady") == "AsSpecified"
        assert any("fault" in route for route in (scene.route or {})["spec"]["http"])


@pytest.mark.parametrize("how", ["spec", "annotation"])
async def test_paused_means_no_write_but_one_status(how: str, scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        scene.edit(paused=True) if how == "spec" else scene.annotate(paused="true")
        scene.server.forget_requests()
        await life.rest()
        assert [(w.call.plural, w.call.subresource) for w in scene.server.writes] == [("modeldeployments", "status")]
        assert scene.reason("Progressing") == "Paused"
        scene.server.delete("PodDisruptionBudget", "flights", scene.service("boosted"))
        scene.edit(variants=[variant("logistic", "Control"), variant("boosted", "Treatment", scaling=TWO)])
        await life.rest()
        scene.server.forget_requests()
        await life.wait(40)
        assert scene.server.writes == []
        scene.edit(paused=None) if how == "spec" else scene.annotate(paused=None)
        await life.rest()
        assert len(scene.world.pods(scene.service("boosted"))) == 2
        assert scene.reason("Progressing") == "Ramping"


async def test_a_pause_is_nobodys_time(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        await life.wait(1000)
        scene.annotate(paused="true")
        await life.rest()
        await life.wait(5000)
        scene.annotate(paused=None)
        await life.rest()
        assert scene.weights == BOTH
        await life.wait(700)
        assert scene.weights == BOTH
        await life.wait(101)
        assert scene.weights == {"logistic": 50, "boosted": 50}


async def test_a_pause_counts_once_however_often_its_end_is_looked_at(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        await life.wait(1000)
        scene.annotate(paused="true")
        await life.rest()
        await life.wait(500)
        scene.server.faults.inject(Refuse(409, "Conflict"), STATUS, times=2)
        scene.annotate(paused=None)
        await life.look()
        assert life.error is not None
        scene.annotate(paused="true")  # another one, before the end of the first was told
        await life.rest()
        await life.wait(2500)
        scene.annotate(paused=None)
        await life.rest()
        assert "pausedAt" not in scene.status()["rollout"]
        await life.wait(799)
        assert scene.weights == BOTH
        await life.wait(2)
        assert scene.weights == {"logistic": 50, "boosted": 50}


async def test_a_pause_begins_with_itself_whatever_was_told_before(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        scene.break_spec()  # Progressing is False from now on
        await life.wait(500)
        scene.edit(variants=[variant("logistic", "Control"), variant("boosted", "Treatment")], paused=True)
        await life.rest()
        await life.wait(300)
        scene.edit(paused=None)
        await life.rest()
        await life.wait(1299)
        assert scene.weights == BOTH
        await life.wait(2)
        assert scene.weights == {"logistic": 50, "boosted": 50}


async def test_a_status_that_is_removed_during_a_pause_comes_back_with_its_beginning(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        scene.annotate(paused="true")
        await life.rest()
        begun = scene.status()["rollout"]["pausedAt"]
        scene.clock.advance(400)
        removed = {"conditions": [], "observedGeneration": 0, "servingRelease": ""}
        scene.server.set_status("ModelDeployment", "flights", "delay", removed)
        await life.rest()
        assert scene.status()["rollout"]["pausedAt"] == begun


async def test_a_spec_that_an_older_schema_let_in(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        before = scene.picture()
        scene.break_spec()
        await life.rest()
        assert scene.reason("Ready") == "InvalidSpec"
        assert "spec.variants" in scene.condition("Ready")[2]
        assert scene.picture() == before
        scene.server.forget_requests()
        await life.look()
        assert scene.server.writes == []
        scene.edit(variants=[variant("logistic", "Control"), variant("boosted", "Treatment")])
        await life.rest()
        assert scene.condition("Ready")[:2] == ("True", "AsSpecified")


async def test_a_spec_that_was_never_good(tmp_path: Path) -> None:
    async with scene_of(tmp_path, experiment()) as scene, scene.life() as life:
        scene.break_spec()
        await life.rest()
        assert scene.reason("Ready") == "InvalidSpec"
        assert scene.ours() == []
        assert life.error is None


async def test_a_status_that_is_lost_in_mid_ramp_is_made_anew(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        route, told = scene.route, scene.status()
    scene.server.set_status("ModelDeployment", "flights", "delay", {})
    async with scene.life() as reborn:
        await reborn.rest()
        assert scene.route == route
        assert scene.status()["rollout"] == told["rollout"]
        assert scene.status()["experiment"] == told["experiment"]


async def test_a_record_that_is_lost_is_read_off_the_route(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        await life.wait(1801)
        route, told = scene.route, kept(scene)
    scene.server.delete("ConfigMap", "flights", "delay-rollout")
    scene.server.set_status("ModelDeployment", "flights", "delay", {})
    scene.clock.advance(100)
    async with scene.life() as reborn:
        await reborn.rest()
        assert scene.route == route
        assert kept(scene) == told


async def test_a_route_that_is_lost_is_made_anew_from_the_record(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        await life.wait(1801)
        salt = scene.status()["experiment"]["salt"]
    scene.server.delete("VirtualService", "flights", "delay")
    async with scene.life() as reborn:
        await reborn.rest()
        assert scene.weights == {"logistic": 50, "boosted": 50}
        assert scene.status()["experiment"]["salt"] == salt


async def test_with_record_and_route_both_lost_it_begins_anew_with_the_same_salt(scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        await life.wait(1801)
        salt = scene.status()["experiment"]["salt"]
    scene.server.delete("VirtualService", "flights", "delay")
    scene.server.delete("ConfigMap", "flights", "delay-rollout")
    async with scene.life() as reborn:
        await reborn.rest()
        assert scene.weights == BOTH
        assert scene.status()["experiment"]["salt"] == salt


@pytest.mark.parametrize("name", ["route", "rollout"])
async def test_annotations_that_are_taken_off_the_route_come_back(name: str, scene: Scene) -> None:
    async with scene.life() as life:
        await life.rest()
        await life.wait(1801)
        annotations = {f"serving.fairlead.dev/{name}": None}
        scene.server.patch("VirtualService", "flights", "delay", {"metadata": {"annotations": annotations}})
    async with scene.life() as reborn:
        await reborn.rest()
        assert scene.weights == {"logistic": 50, "boosted": 50}
        assert f"serving.fairlead.dev/{name}" in (scene.route or {})["metadata"]["annotations"]


async def test_a_feature_store_that_is_missing_is_looked_for_without_any_event(tmp_path: Path) -> None:
    async with scene_of(tmp_path, alone()) as scene, scene.life() as life:
        scene.server.delete("ConfigMap", "flights", "feast-client")
        await life.rest()
        assert scene.reason("FeaturesReady") == "FeatureStoreNotFound"
        assert life.again_s == pytest.approx(30)
