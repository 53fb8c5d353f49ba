"""A ModelDeployment in a cluster: what it is like now, and what to wait by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from fairlead import Layout
from fairlead.serving import ServerReport
from fairlead_operator.core.observed import Route
from fairlead_operator.platforms.kubernetes.kinds import DEPLOYMENT_LABEL, MODEL_DEPLOYMENT, POD, VIRTUAL_SERVICE
from fairlead_operator.platforms.kubernetes.render import read_route
from support.cluster import Cluster, wait_for
from support.cluster_api import ClusterApi, Resource

MODEL_NAME = "arrival-delay"
REQUEST = "serving.fairlead.dev__request"
"""Annotation that decides a rollout, as ``ClusterApi.annotate`` takes it."""
_READY_S = 120.0


class Place(Protocol):
    """A namespace of a cluster that ModelDeployments are in."""

    @property
    def cluster(self) -> Cluster: ...
    @property
    def api(self) -> ClusterApi: ...
    @property
    def namespace(self) -> str: ...
    def host(self, name: str) -> str:
        """Return the host of a deployment."""
        ...


@dataclass(frozen=True, slots=True)
class Deployed:
    """A ModelDeployment in the cluster."""

    stage: Place
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
