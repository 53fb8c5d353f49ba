"""What is rendered, whole: golden files, reviewed like code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead_operator.api.v1alpha1.routing import ConnectionPool, OutlierDetection
from fairlead_operator.core.desired import Revision
from fairlead_operator.platforms.kubernetes import render
from support.golden import matches_golden
from support.rendering import (
    CLAIM,
    COOKIE,
    GATEWAY_NAMESPACE,
    KEY,
    PLACE,
    SELECTOR,
    revision,
    revision_name,
    route,
)

GOLDEN = Path(__file__).with_name("golden")


def service(of: Revision) -> Any:
    return render.inference_service(PLACE, of, min_replicas=2, max_replicas=10, cpu_percent=70)


STORED = revision(
    storage={"secretRef": {"name": "models-s3"}, "endpoint": "https://minio.storage:9000", "region": "eu-west-1"},
    feature_store={"configMapRef": {"name": "feast-client"}, "secretRef": {"name": "feast-redis"}},
)
CLAIMED = revision("pvc://models/arrival-delay/3/boosted.onnx", variant="boosted", account="reader")
GOOGLE = revision(
    "gs://models/m.onnx",
    storage={"secretRef": {"name": "models-gs"}},
    feature_store={"featureStoreRef": {"name": "flights"}},
)
WHOLE_REACH: dict[str, Any] = {
    "outlier_detection": OutlierDetection(),
    "connection_pool": ConnectionPool(max_connections=64),
}

RENDERED: dict[str, Callable[[], Any]] = {
    "serving-runtime": lambda: render.serving_runtime(PLACE, "0.1.0"),
    "inference-service-s3": lambda: service(STORED),
    "inference-service-pvc": lambda: service(CLAIMED),
    "inference-service-gs": lambda: service(GOOGLE),
    "storage-container": lambda: render.storage_container("fairlead.local/server:0.1.0"),
    "virtual-service": lambda: render.virtual_service(PLACE, route(), KEY),
    "virtual-service-cookie": lambda: render.virtual_service(PLACE, route({"boosted": 0}, unit=COOKIE), KEY),
    "envoy-filter": lambda: render.envoy_filter(PLACE, route(), GATEWAY_NAMESPACE, SELECTOR),
    "envoy-filter-cookie": lambda: render.envoy_filter(PLACE, route(unit=COOKIE), GATEWAY_NAMESPACE, SELECTOR),
    "unanswered-filter": lambda: render.unanswered_filter(GATEWAY_NAMESPACE, SELECTOR),
    "destination-rules": lambda: render.destination_rules(
        PLACE, route(**WHOLE_REACH).reach, [revision_name("logistic"), revision_name("boosted")]
    ),
    "network-policy": lambda: render.network_policy(PLACE, ["istio-ingress", "fairlead-system", "monitoring"]),
    "pod-disruption-budget": lambda: render.pod_disruption_budget(PLACE, "boosted", revision_name("boosted")),
    "authorization-policy": lambda: render.authorization_policy(
        PLACE, route(unit=CLAIM), KEY, GATEWAY_NAMESPACE, SELECTOR, issuers=["https://login.example.org"]
    ),
    "serving-secret": lambda: render.serving_secret(PLACE, [KEY]),
    "serving-config-map": lambda: render.serving_config_map(PLACE, {"serving.json": "{}"}),
}


@pytest.mark.parametrize("name", RENDERED)
def test_what_is_rendered_is_what_was_reviewed(name: str) -> None:
    matches_golden(GOLDEN / f"{name}.yaml", RENDERED[name]())


@pytest.mark.parametrize(("name", "of"), [("s3", STORED), ("pvc", CLAIMED), ("gs", GOOGLE)])
def test_no_upgrade_of_the_operator_changes_what_release_0_1_0_is_rendered_from(name: str, of: Revision) -> None:
    matches_golden(GOLDEN / "identity" / f"0.1.0-{name}.yaml", render.pod_identity(of))
