"""ModelDeployments in the test cluster: a namespace with features and tiny models, builders, and what to wait by."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from fairlead import Layout
from fairlead.serving import ServerReport
from fairlead_operator.core.observed import Route
from fairlead_operator.platforms.kubernetes.kinds import (
    AUTHORIZATION_POLICY,
    CONFIG_MAP,
    DEPLOYMENT_LABEL,
    DEPLOYMENT_NAMESPACE_LABEL,
    ENVOY_FILTER,
    MODEL_DEPLOYMENT,
    NAMESPACE,
    POD,
    VIRTUAL_SERVICE,
)
from fairlead_operator.platforms.kubernetes.render import read_route
from support.cluster import Cluster, wait_for
from support.cluster_api import ClusterApi, Resource
from support.cluster_store import feature_store_config_map, make_cluster_repo, write_row
from support.models import contract_of, write_model
from support.servers import RedisServer
from support.store import FeatureRepo

MODEL_NAME = "arrival-delay"
FEATURE_STORE = "feast-client"
REQUEST = "serving.fairlead.dev__request"
"""Annotation that decides a rollout, as ``ClusterApi.annotate`` takes it."""
MODELS = ("logistic", "boosted", "forest", "next", "last")
"""Tiny models, each with a digest of its own; all predict the same."""
RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
_READY_S = 120.0
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


@dataclass(frozen=True, slots=True)
class Deployed:
    """A ModelDeployment in the cluster."""

    stage: Stage
    name: str

    @property
    def api(self) -> ClusterApi:
        return self.stage.api

    @property
    def namespace(self) -> str:
        return self.stage.namespace

    @property
    def host(self) -> str:
        return self.stage.host(self.name)

    @property
    def address(self) -> str:
        """``host:port`` of the gateway."""
        return self.stage.cluster.gateway.address

    def resource(self) -> Resource:
        """Return it as it is now."""
        return self.api.get(MODEL_DEPLOYMENT, self.namespace, self.name)

    def status(self) -> dict[str, Any]:
        """Return its status as it is now; empty before the first."""
        found: dict[str, Any] = self.resource().get("status", {})
        return found

    def condition(self, kind: str) -> dict[str, Any]:
        """Return one of its conditions as it is now; empty if it has none."""
        conditions = self.status().get("conditions", [])
        return next((one for one in conditions if one["type"] == kind), {})

    def patch(self, **spec: Any) -> Resource:
        """Merge fields into its spec."""
        return self.api.patch(MODEL_DEPLOYMENT, self.namespace, self.name, {"spec": spec})

    def annotate(self, **annotations: str | None) -> Resource:
        """Set its annotations; see ``ClusterApi.annotate``."""
        return self.api.annotate(MODEL_DEPLOYMENT, self.namespace, self.name, **annotations)

    def request(self, words: str, run: str | None = None) -> None:
        """Decide its rollout: ``promote VARIANT`` or ``abort``, of the experiment in force unless ``run`` names one."""
        self.annotate(**{REQUEST: f"{words} {run or self.status()['experiment']['salt']}"})

    def route(self) -> Route | None:
        """Return the route in force, as its VirtualService says."""
        live = self.api.find(VIRTUAL_SERVICE, self.namespace, self.name)
        return read_route(live) if live else None

    def weights_bp(self) -> dict[str, int]:
        """Return the weights in force by variant, basis points, from the VirtualService."""
        route = self.route()
        return {} if route is None else {d.variant: route.weight_bp(d.variant) for d in route.split}

    def layout(self, control: str, **treatments: int) -> Layout:
        """Return where the law lays treatments of these weights, per cent."""
        return Layout.of(control, {arm: weight * 100 for arm, weight in treatments.items()})

    def wait(self, condition: Callable[[], bool], timeout_s: float = _READY_S) -> None:
        """Return once ``condition`` holds; a TimeoutError tells the story of the deployment."""
        wait_for(condition, timeout_s=timeout_s, otherwise=self.story)

    def wait_condition(
        self, kind: str, status: str = "True", *, reason: str | None = None, timeout_s: float = _READY_S
    ) -> dict[str, Any]:
        """Return a condition once it has this status and reason and speaks of the spec as it is."""
        found: dict[str, Any] = {}

        def holds() -> bool:
            found.clear()
            resource = self.resource()
            conditions = resource.get("status", {}).get("conditions", [])
            found.update(next((one for one in conditions if one["type"] == kind), {}))
            current = found.get("observedGeneration") == resource["metadata"]["generation"]
            return current and found["status"] == status and reason in {None, found["reason"]}

        self.wait(holds, timeout_s)
        return found

    def wait_weights(self, *, timeout_s: float = _READY_S, **treatments: int) -> None:
        """Return once the route gives these treatments these per cent."""
        wanted = {arm: weight * 100 for arm, weight in treatments.items()}
        self.wait(lambda: wanted.items() <= self.weights_bp().items(), timeout_s)

    def pods(self, **labels: str) -> dict[str, Resource]:
        """Return its pods that are not about to go, by uid."""
        named = {DEPLOYMENT_LABEL.replace("/", "__"): self.name}
        found = self.api.items(POD, self.namespace, **named, **labels)
        return {pod["metadata"]["uid"]: pod for pod in found if "deletionTimestamp" not in pod["metadata"]}

    def reports(self) -> dict[str, ServerReport]:
        """Return what each of its pods tells about itself, by the pod's uid."""
        return {uid: report_of(pod) for uid, pod in self.pods().items() if pod["status"].get("podIP")}

    def delete(self) -> None:
        """Delete it, without waiting."""
        self.api.delete(MODEL_DEPLOYMENT, self.namespace, self.name)

    def story(self) -> str:
        """Return what can be told about it: status, route, pods and events."""
        live = self.api.find(MODEL_DEPLOYMENT, self.namespace, self.name) or {}
        status = live.get("status", {})
        lines = [f"{c['type']}={c['status']} {c['reason']}: {c['message']}" for c in status.get("conditions", [])]
        told = f"rollout {status.get('rollout')}\nweights {self.weights_bp()}"
        return "\n".join([*lines, told, self.stage.cluster.story(self.namespace)])


def report_of(pod: Mapping[str, Any]) -> ServerReport:
    """Return what a pod tells about itself."""
    url = f"http://{pod['status']['podIP']}:8080/v2/models/{MODEL_NAME}"
    return ServerReport.from_metadata(httpx.get(url, trust_env=False, timeout=10).raise_for_status().json())


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
