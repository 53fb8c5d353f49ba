"""The operator's role is what the operator needs: no call is forbidden, and no verb is unused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fairlead_operator.runtime.keys import ObjectKey
from support.cluster_world import Scene, experiment, routing, scene_of, variant
from support.operators import labels_of
from support.rbac import ROLE, granted, needed
from support.scale_world import started
from support.waiting import until

FAST = ("--lease-duration-s", "1.5", "--lease-renew-deadline-s", "1", "--lease-retry-s", "0.1")
FOR_OTHERS = {("serving.fairlead.dev", "modeldeployments/finalizers", "update")}
"""What an admission plugin asks about, and no call ever uses."""


def jwt(scene: Scene) -> dict[str, Any]:
    rule = {"issuer": "https://id.example", "outputClaimToHeaders": [{"claim": "sub", "header": "x-jwt-sub"}]}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "jwt", "namespace": "istio-ingress"},
        "spec": {"selector": {"matchLabels": scene.gateway.labels}, "jwtRules": [rule]},
    }


async def test_the_role_is_what_a_whole_operator_uses(tmp_path: Path) -> None:
    fault = {"abort": {"percent": 1, "status": 503}}
    reached = routing(unit={"jwtClaim": "sub", "header": "x-jwt-sub"}, fault=fault)
    async with scene_of(tmp_path) as scene, scene.world.running():
        server = scene.server
        server.create(jwt(scene))
        process = await started(server.kubeconfig(tmp_path), *FAST, "--resync-interval-s", "1.5")
        try:
            await until(lambda: "modeldeployments.serving.fairlead.dev" in server.open_watches, timeout_s=30)
            server.create(experiment(routing=reached))
            await until(lambda: scene.weights == {"logistic": 90, "boosted": 10}, timeout_s=30)
            await edited(scene)
            await drifted(scene)
            server.create(orphan())
            server.delete("ModelDeployment", "flights", "delay")
            await until(lambda: scene.ours() == [], timeout_s=30)
        finally:
            process.process.terminate()
            await process.process.wait()
        calls = needed(server.requests)
    own = {grant for grant in calls if grant[0] == "coordination.k8s.io"}
    assert own == granted("Role")
    assert calls - own - granted("ClusterRole") == set(), "forbidden calls"
    assert granted("ClusterRole") - calls - FOR_OTHERS == set(), "verbs that nobody uses"


def orphan() -> dict[str, Any]:
    """Return an EnvoyFilter of ours whose deployment is no more."""
    meta = {
        "name": "fairlead-flights.gone",
        "namespace": "istio-ingress",
        "labels": labels_of(ObjectKey("flights", "gone")),
    }
    return {"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": meta, "spec": {}}


async def edited(scene: Scene) -> None:
    """Have a revision replaced, so that what belongs to it goes."""
    old, more = scene.service("boosted"), {"requests": {"cpu": "2"}}
    scene.edit(variants=[variant("logistic", "Control"), variant("boosted", "Treatment", resources=more)])
    await until(lambda: scene.server.get("InferenceService", "flights", old) is None, timeout_s=30)
    await until(lambda: ("PodDisruptionBudget", "flights", old) not in scene.ours(), timeout_s=30)


async def drifted(scene: Scene) -> None:
    """Take our label off everything: it is fetched by its name, and put right."""
    before = scene.ours()
    for place in before:
        scene.server.patch(*place, {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}})
    await until(lambda: scene.ours() == before, timeout_s=45)


def test_the_role_asks_for_no_more_than_it_says() -> None:
    text = ROLE.read_text()
    assert '"*"' not in text
    secrets = {verb for group, resource, verb in granted("ClusterRole") if resource == "secrets"}
    assert not secrets & {"list", "watch", "delete"}
