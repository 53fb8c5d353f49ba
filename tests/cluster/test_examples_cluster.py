"""Every example for clusters: the API takes it as it is, and the operator renders all of it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead_operator.platforms.kubernetes.kinds import (
    DEPLOYMENT,
    DEPLOYMENT_LABEL,
    INFERENCE_SERVICE,
    MODEL_DEPLOYMENT,
    NAMESPACE,
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
)
from support.cluster import Cluster, wait_for
from support.cluster_api import ClusterApi, Resource
from support.cluster_deployments import restricted_namespace
from support.cluster_operator import install, operator_of

FOLDER = Path(__file__).parents[2] / "examples/cluster"
FILES = sorted(FOLDER.glob("*.yaml"))
OURS = {"InvalidSpec", "RefusedByApi", "NameTooLong", "KServeMissing", "IstioMissing"}
"""Reasons of examples that are wrong, or of an operator that is."""
EXPECTED = {"FeatureStoreNotFound", "PodsBlocked", "Starting", "UnitClaimUnavailable"}
"""What such a cluster lacks: a feature store, Secrets, and an issuer of tokens."""
LABEL = DEPLOYMENT_LABEL.replace("/", "__")


@pytest.fixture(scope="module")
def applied(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Resource]]:
    """Every example, in a namespace of its own, once the operator has told of it; by the file's name."""
    install(cluster)
    mark = secrets.token_hex(2)
    namespaces = {path.stem: f"x{mark}-{path.stem[:6]}" for path in FILES}
    with ExitStack() as stack:
        api = stack.enter_context(ClusterApi(cluster.kubeconfig))
        for name in namespaces.values():
            api.apply(NAMESPACE, restricted_namespace(name))
            stack.callback(api.delete, NAMESPACE, None, name)
        home = next(iter(namespaces.values()))
        flags = [f"--namespaces={','.join(namespaces.values())}"]
        stack.enter_context(operator_of(cluster, home, tmp_path_factory.mktemp("examples"), flags=flags))
        keys = {path.stem: _apply(api, path, namespaces[path.stem]) for path in FILES}
        for namespace, name in keys.values():
            stack.callback(_wait_gone, api, namespace, name)
            stack.callback(api.delete, MODEL_DEPLOYMENT, namespace, name)
        for namespace, name in keys.values():
            wait_for(lambda n=namespace, m=name: _is_rendered(api, n, m), timeout_s=40)  # type: ignore[misc]
        yield {stem: api.get(MODEL_DEPLOYMENT, *key) for stem, key in keys.items()}


@pytest.mark.parametrize("stem", [path.stem for path in FILES])
def test_an_example_is_rendered_and_says_what_the_cluster_lacks(stem: str, applied: Mapping[str, Resource]) -> None:
    live = applied[stem]
    reasons = {one["reason"] for one in live["status"]["conditions"] if one["status"] == "False"}
    assert not reasons & OURS, live["status"]["conditions"]
    assert reasons & EXPECTED, live["status"]["conditions"]
    features = next(one for one in live["status"]["conditions"] if one["type"] == "FeaturesReady")
    assert features["reason"] == "FeatureStoreNotFound", features
    assert features["message"]


def test_one_line_of_kubectl_tells_what_is_missing(cluster: Cluster, applied: Mapping[str, Resource]) -> None:
    for live in applied.values():
        line = cluster.kubectl("get", "mdep", f"--namespace={live['metadata']['namespace']}", "--no-headers")
        name, ready, reason, *_ = line.split()
        assert (name, ready) == (live["metadata"]["name"], "False")
        assert reason in EXPECTED, line


def _apply(api: ClusterApi, path: Path, namespace: str) -> tuple[str, str]:
    manifest: dict[str, Any] = yaml.safe_load(path.read_text())
    manifest["metadata"]["namespace"] = namespace
    api.apply(MODEL_DEPLOYMENT, manifest)
    return namespace, manifest["metadata"]["name"]


def _is_rendered(api: ClusterApi, namespace: str, name: str) -> bool:
    """Return whether every variant has all of its objects, KServe has taken them, and the status tells of it."""
    live = api.get(MODEL_DEPLOYMENT, namespace, name)
    variants = len(live["spec"]["variants"])
    kinds = (INFERENCE_SERVICE, POD_DISRUPTION_BUDGET, DEPLOYMENT)
    made = all(len(api.items(kind, namespace, **{LABEL: name})) == variants for kind in kinds)
    told = live.get("status", {}).get("conditions")
    return made and bool(told) and bool(api.items(NETWORK_POLICY, namespace, **{LABEL: name}))


def _wait_gone(api: ClusterApi, namespace: str, name: str) -> None:
    wait_for(lambda: api.find(MODEL_DEPLOYMENT, namespace, name) is None, timeout_s=30)
