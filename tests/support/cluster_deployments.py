"""ModelDeployments in the test cluster: a namespace with features and tiny models, builders, and what to wait by."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fairlead_operator.platforms.kubernetes.kinds import (
    AUTHORIZATION_POLICY,
    CONFIG_MAP,
    DEPLOYMENT_NAMESPACE_LABEL,
    ENVOY_FILTER,
    MODEL_DEPLOYMENT,
    NAMESPACE,
)
from support.cluster import Cluster, wait_for
from support.cluster_api import ClusterApi
from support.cluster_deployed import MODEL_NAME, REQUEST, Deployed, report_of
from support.cluster_store import feature_store_config_map, make_cluster_repo, write_row
from support.models import contract_of, write_model
from support.servers import RedisServer
from support.store import FeatureRepo

FEATURE_STORE = "feast-client"
__all__ = ["MODEL_NAME", "REQUEST", "Deployed", "Stage", "report_of", "restricted_namespace", "stage_of"]

MODELS = ("logistic", "boosted", "forest", "next", "last")
"""Tiny models, each with a digest of its own; all predict the same."""
RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
_RETIRED_S = 5.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A namespace that admits only restricted pods, with the ConfigMap ``feast-client``, and models to fetch."""

    cluster: Cluster
    api: ClusterApi
    namespace: str
    repo: FeatureRepo
    models_url: str
    """Where models are served, by ``NAME.onnx``."""
    digests: Mapping[str, str]
    """By the name of the model."""
    files: Path
    """Folder of what is served there."""

    def model(self, name: str) -> dict[str, Any]:
        """Return the block ``model`` of a variant."""
        return {"uri": f"{self.models_url}/{name}.onnx", "digest": self.digests[name]}

    def variant(self, name: str, role: str = "Control", *, model: str | None = None, **fields: Any) -> dict[str, Any]:
        """Return a variant; its model has its name unless ``model`` says another."""
        return {"name": name, "role": role, "model": self.model(model or name), "resources": RESOURCES, **fields}

    def manifest(
        self,
        name: str,
        variants: Sequence[Mapping[str, Any]],
        *,
        routing: Mapping[str, Any] | None = None,
        **spec: Any,
    ) -> dict[str, Any]:
        """Return a ModelDeployment behind the gateway; ``spec`` are more fields of its spec, as JSON names them."""
        reach = {"hosts": [self.host(name)], "gateways": [self.cluster.gateway.name], "unit": {"header": "x-unit-id"}}
        return {
            "apiVersion": MODEL_DEPLOYMENT.api_version,
            "kind": MODEL_DEPLOYMENT.kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "featureStore": {"configMapRef": {"name": FEATURE_STORE}},
                "modelName": MODEL_NAME,
                "variants": list(variants),
                "routing": {**reach, **(routing or {})},
                **spec,
            },
        }

    def host(self, name: str) -> str:
        """Return the host of a deployment."""
        return f"{name}.{self.namespace}.example.org"

    def retire(self) -> None:
        """Delete every ModelDeployment; without an operator, by the documented way out."""
        names = [one["metadata"]["name"] for one in self.api.items(MODEL_DEPLOYMENT, self.namespace)]
        for name in names:
            self.api.delete(MODEL_DEPLOYMENT, self.namespace, name)
        try:
            wait_for(lambda: not self.api.items(MODEL_DEPLOYMENT, self.namespace), timeout_s=_RETIRED_S)
        except TimeoutError:
            for one in self.api.items(MODEL_DEPLOYMENT, self.namespace):
                name = one["metadata"]["name"]
                self.api.patch(MODEL_DEPLOYMENT, self.namespace, name, {"metadata": {"finalizers": None}})

    def apply(self, manifest: Mapping[str, Any]) -> Deployed:
        """Apply a ModelDeployment, as a user does."""
        self.api.apply(MODEL_DEPLOYMENT, manifest)
        return Deployed(self, manifest["metadata"]["name"])


def restricted_namespace(name: str) -> dict[str, Any]:
    """Return a namespace that admits only restricted pods."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


@contextmanager
def stage_of(cluster: Cluster, redis: RedisServer, namespace: str, folder: Path) -> Iterator[Stage]:
    """Make a stage, and remove its namespace afterwards, without waiting for the end of it.

    Args:
        cluster: Where.
        redis: The online store; it gets a row (``support.server_process.ROW``).
        namespace: Its name; at most 16 characters, so that KServe's host names have room.
        folder: For repository and models.
    """
    repo = make_cluster_repo(folder / "repo", redis.address)
    write_row(repo, datetime.now(UTC))
    files = folder / "models"
    files.mkdir()
    with ClusterApi(cluster.kubeconfig) as api, _served(files, cluster.node_ip) as url:
        api.apply(NAMESPACE, restricted_namespace(namespace))
        api.apply(CONFIG_MAP, feature_store_config_map(repo, FEATURE_STORE, namespace))
        digests = {name: _write(repo, files, name) for name in MODELS}
        stage = Stage(cluster, api, namespace, repo, url, digests, files)
        try:
            yield stage
        finally:
            _leave(stage)


def _write(repo: FeatureRepo, files: Path, name: str) -> str:
    """Write a tiny model that differs from others by its version alone; return its digest."""
    contract = contract_of(repo.describe(), echo=False).model_copy(update={"version": name})
    return write_model(files / f"{name}.onnx", contract)


def _leave(stage: Stage) -> None:
    """Delete the ModelDeployments, if that was not done while their operator ran, and then the namespace."""
    stage.retire()
    for kind in (ENVOY_FILTER, AUTHORIZATION_POLICY):
        namespace, label = stage.cluster.gateway.namespace, DEPLOYMENT_NAMESPACE_LABEL.replace("/", "__")
        for left in stage.api.items(kind, namespace, **{label: stage.namespace}):
            stage.api.delete(kind, namespace, left["metadata"]["name"])
    stage.api.delete(NAMESPACE, None, stage.namespace)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 -- the base class' name
        """Say nothing."""


@contextmanager
def _served(folder: Path, host: str) -> Iterator[str]:
    """Serve a folder over HTTP where pods reach it; yield its URL."""
    server = ThreadingHTTPServer((host, 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
