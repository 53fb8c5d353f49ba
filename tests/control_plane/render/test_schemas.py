"""Everything rendered, against the schemas of those who will read it, unknown fields refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from fairlead_operator.core.observed import Route
from fairlead_operator.platforms.kubernetes import render
from support.crd_schemas import KINDS, tools_cache, trimmed, wrong_in, wrong_type
from support.rendering import GATEWAY_NAMESPACE, KEY, PLACE, SELECTOR, revision, route, routes

SCHEMAS = Path(__file__).with_name("schemas")

REVISIONS = [
    revision(),
    revision(storage={"secretRef": {"name": "s"}, "endpoint": "https://minio:9000", "region": "eu"}, account="a"),
    revision("gs://b/m.onnx", storage={"secretRef": {"name": "s"}}, feature_store={"featureStoreRef": {"name": "f"}}),
    revision("pvc://claim/m.onnx", feature_store={"configMapRef": {"name": "c"}, "secretRef": {"name": "s"}}),
]


def schema(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SCHEMAS / f"{kind}.json").read_text())
    return found


def wrong(manifest: dict[str, Any]) -> list[str]:
    assert manifest["apiVersion"].rpartition("/")[2] == KINDS[manifest["kind"]]
    return wrong_in(manifest, schema(manifest["kind"]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_schemas_kept_here_are_those_of_the_clusters_tools(kind: str) -> None:
    current = trimmed(kind, tools_cache())
    if current is not None and os.environ.get("FAIRLEAD_GOLDEN") == "write":
        (SCHEMAS / f"{kind}.json").write_text(json.dumps(current, separators=(",", ":"), sort_keys=True) + "\n")
    assert current in (None, schema(kind))


@pytest.mark.parametrize("of", REVISIONS, ids=lambda of: of.model.uri)
def test_kserve_knows_every_field_of_an_inference_service(of: Any) -> None:
    assert not wrong(render.inference_service(PLACE, of, min_replicas=1, max_replicas=3, cpu_percent=70))


def test_kserve_knows_every_field_of_runtime_and_storage_container() -> None:
    assert not wrong(render.serving_runtime(PLACE, "0.1.0"))
    assert not wrong(render.storage_container("fairlead.local/server:0.1.0"))


@given(routes())
@settings(max_examples=40, deadline=None)
def test_istio_knows_every_field_of_any_route(of: Route) -> None:
    assert not wrong(render.virtual_service(PLACE, of, KEY))
    assert not wrong(render.envoy_filter(PLACE, of, GATEWAY_NAMESPACE, SELECTOR))
    assert not wrong(render.authorization_policy(PLACE, of, KEY, GATEWAY_NAMESPACE, SELECTOR, issuers=["i"]))
    for rule in render.destination_rules(PLACE, of.reach, ["r1", "r2"]):
        assert not wrong(rule)


@pytest.mark.parametrize(
    ("manifest", "kind"),
    [
        (render.network_policy(PLACE, ["istio-ingress"]), "V1NetworkPolicy"),
        (render.pod_disruption_budget(PLACE, "logistic", "r1"), "V1PodDisruptionBudget"),
        (render.serving_secret(PLACE, [KEY]), "V1Secret"),
        (render.serving_config_map(PLACE, {"serving.json": "{}"}), "V1ConfigMap"),
    ],
)
def test_kubernetes_knows_every_field_of_its_own_kinds(manifest: dict[str, Any], kind: str) -> None:
    assert not list(wrong_type(manifest, kind))


def test_these_checks_see_misspelt_fields_and_wrong_types() -> None:
    service = render.virtual_service(PLACE, route(), KEY)
    service["spec"]["http"][0]["timeOut"] = "1s"
    service["spec"]["http"][1]["route"][0]["weight"] = "ten"
    assert len(wrong(service)) == 2
    policy = render.network_policy(PLACE, ["istio-ingress"])
    policy["spec"]["ingres"] = []
    policy["spec"]["policyTypes"] = "Ingress"
    assert list(wrong_type(policy, "V1NetworkPolicy")) == [".spec.policyTypes: no list", ".spec.ingres: unknown"]
