"""With the chart's settings an operator of chosen namespaces calls what its Roles allow and the API understands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fairlead_operator.settings import Settings, variable
from support.charts import component_of, operator_of, rendered
from support.cluster_world import Scene, experiment, routing, scene_of
from support.kube import Record
from support.rbac import Grant, needed
from support.scale_world import started
from support.waiting import until

FAST = ("--lease-duration-s", "1.5", "--lease-renew-deadline-s", "1", "--lease-retry-s", "0.1")
SERVED, GATEWAY = "flights", "istio-ingress"
VALUES = {"operator": {"namespaces": [SERVED]}}
NOT_UNDERSTOOD = (400, 405, 415, 422)
OF_THE_TEST = ("http_port", "http_host", "own_namespace", "pod_name")
"""Settings that are not the chart's here."""


def flags() -> list[str]:
    """Return the settings that the chart gives, as flags."""
    container = operator_of(rendered("fairlead", VALUES))["spec"]["template"]["spec"]["containers"][0]
    given = {variable["name"]: variable.get("value", "") for variable in container["env"]}
    return [
        f"--{name.replace('_', '-')}={given[variable(name)]}"
        for name in Settings.model_fields
        if variable(name) in given and name not in OF_THE_TEST
    ]


def roles() -> dict[str, set[Grant]]:
    """Return what the chart allows, by namespace; the empty one is the whole cluster."""
    allowed: dict[str, set[Grant]] = defaultdict(set)
    for manifest in rendered("fairlead", VALUES):
        if manifest["kind"] in ("Role", "ClusterRole") and component_of(manifest) == "operator":
            allowed[manifest["metadata"].get("namespace", "")] |= {
                (group, resource, verb)
                for rule in manifest["rules"]
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
    return allowed


def forbidden(records: Iterable[Record]) -> list[tuple[str, Grant]]:
    """Return the grants that calls need and the chart does not give; the Lease is in the operator's own namespace."""
    allowed = roles()
    return sorted(
        {
            (record.call.namespace, grant)
            for record in records
            for grant in needed([record])
            if grant[0] != "coordination.k8s.io" and grant not in allowed[record.call.namespace] | allowed[""]
        }
    )


async def test_an_operator_of_one_namespace_stays_within_its_roles(tmp_path: Path) -> None:
    reached = routing(unit={"jwtClaim": "sub", "header": "x-jwt-sub"})
    async with scene_of(tmp_path) as scene, scene.world.running():
        server = scene.server
        server.create(_jwt(scene))
        process = await started(server.kubeconfig(tmp_path), *flags(), *FAST, "--resync-interval-s", "1.5")
        try:
            server.create(experiment(routing=reached))
            await until(lambda: scene.weights == {"logistic": 90, "boosted": 10}, timeout_s=60)
            server.delete("ModelDeployment", SERVED, "delay")
            await until(lambda: {kind for kind, _, _ in scene.ours()} <= {"ClusterStorageContainer"}, timeout_s=60)
        finally:
            process.process.terminate()
            await process.process.wait()
        calls = server.requests
    places = {record.call.namespace for record in calls if record.call.is_resource}
    assert places >= {SERVED, GATEWAY}
    assert forbidden(calls) == []
    assert [record for record in calls if record.code in NOT_UNDERSTOOD] == []


def _jwt(scene: Scene) -> dict[str, Any]:
    rule = {"issuer": "https://id.example", "outputClaimToHeaders": [{"claim": "sub", "header": "x-jwt-sub"}]}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "jwt", "namespace": GATEWAY},
        "spec": {"selector": {"matchLabels": scene.gateway.labels}, "jwtRules": [rule]},
    }
