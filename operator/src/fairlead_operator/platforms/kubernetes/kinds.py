"""The kinds that we read or write: where the API serves them, and what of each is kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

GROUP = "serving.fairlead.dev"

MANAGED_BY = "app.kubernetes.io/managed-by"
DEPLOYMENT_LABEL = f"{GROUP}/deployment"
DEPLOYMENT_NAMESPACE_LABEL = f"{GROUP}/deployment-namespace"
VARIANT_LABEL = f"{GROUP}/variant"
REVISION_LABEL = f"{GROUP}/revision"
FINALIZER = f"{GROUP}/routes"

OURS = {MANAGED_BY: "fairlead"}
"""Labels of everything that we make, and of what KServe makes of it (it copies an InferenceService's labels)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind, and where the API serves it."""

    group: str
    """Empty for the core group."""
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """What ``apiVersion`` says."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def api_path(self) -> str:
        """Path of the group version on the API server."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the path of a collection, an object or a subresource; no ``namespace`` means all of them."""
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{self.api_path}{scope}/{self.plural}{tail}"

    def __str__(self) -> str:
        """Return ``kind.group`` as kubectl writes it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


MODEL_DEPLOYMENT = Kind(GROUP, "v1alpha1", "ModelDeployment", "modeldeployments")

CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
SECRET = Kind("", "v1", "Secret", "secrets")
SERVICE = Kind("", "v1", "Service", "services")
POD = Kind("", "v1", "Pod", "pods")
NAMESPACE = Kind("", "v1", "Namespace", "namespaces", namespaced=False)
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments")
REPLICA_SET = Kind("apps", "v1", "ReplicaSet", "replicasets")
HORIZONTAL_POD_AUTOSCALER = Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
POD_DISRUPTION_BUDGET = Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICY = Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")
EVENT = Kind("events.k8s.io", "v1", "Event", "events")

INFERENCE_SERVICE = Kind("serving.kserve.io", "v1beta1", "InferenceService", "inferenceservices")
SERVING_RUNTIME = Kind("serving.kserve.io", "v1alpha1", "ServingRuntime", "servingruntimes")
CLUSTER_STORAGE_CONTAINER = Kind(
    "serving.kserve.io", "v1alpha1", "ClusterStorageContainer", "clusterstoragecontainers", namespaced=False
)

VIRTUAL_SERVICE = Kind("networking.istio.io", "v1", "VirtualService", "virtualservices")
DESTINATION_RULE = Kind("networking.istio.io", "v1", "DestinationRule", "destinationrules")
GATEWAY = Kind("networking.istio.io", "v1", "Gateway", "gateways")
ENVOY_FILTER = Kind("networking.istio.io", "v1alpha3", "EnvoyFilter", "envoyfilters")
AUTHORIZATION_POLICY = Kind("security.istio.io", "v1", "AuthorizationPolicy", "authorizationpolicies")
REQUEST_AUTHENTICATION = Kind("security.istio.io", "v1", "RequestAuthentication", "requestauthentications")

FEATURE_STORE = Kind("feast.dev", "v1", "FeatureStore", "featurestores")


Trim: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any]]
"""From an object as the API gives it to the fields of it, metadata aside, that we ever read."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A kind of which the store keeps objects."""

    kind: Kind
    trim: Trim
    labels: Mapping[str, str] = field(default_factory=lambda: OURS)
    """What an object must be labelled with to be seen at all."""
    optional: bool = False
    """Whether it comes with a CRD that may not be installed (yet)."""


def metadata(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata that is kept of every object; its resourceVersion is kept apart."""
    given = resource["metadata"]
    kept = {name: given[name] for name in _KEPT_METADATA if name in given}
    if annotations := {n: v for n, v in given.get("annotations", {}).items() if n not in _FOREIGN_ANNOTATIONS}:
        kept["annotations"] = annotations
    return kept


def nothing(_: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the metadata alone: it is enough to know that the object is there and at which version."""
    return {}


def fields(*paths: str) -> Trim:
    """Keep what is at the dotted ``paths``."""
    split = tuple(tuple(path.split(".")) for path in paths)

    def trim(resource: Mapping[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for path in split:
            _copy(resource, kept, path)
        return kept

    return trim


def pod(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what readiness and failures are read from: phase, conditions, and each container's state."""
    status = resource.get("status", {})
    kept = {name: status[name] for name in ("phase", "reason", "message", "conditions", "podIP") if name in status}
    for group in ("initContainerStatuses", "containerStatuses"):
        if group in status:
            kept[group] = [{name: one[name] for name in _KEPT_OF_CONTAINERS if name in one} for one in status[group]]
    return {"status": kept}


def _copy(source: Mapping[str, Any], target: dict[str, Any], path: tuple[str, ...]) -> None:
    first, *rest = path
    if first not in source:
        return
    if rest:
        _copy(source[first], target.setdefault(first, {}), tuple(rest))
    else:
        target[first] = source[first]


_KEPT_METADATA: Final = (
    *("name", "namespace", "uid", "generation", "creationTimestamp", "deletionTimestamp"),
    *("labels", "ownerReferences", "finalizers"),
)
_FOREIGN_ANNOTATIONS: Final = frozenset({"kubectl.kubernetes.io/last-applied-configuration"})
_KEPT_OF_CONTAINERS: Final = ("name", "ready", "started", "restartCount", "state", "lastState")

PARENT: Final = Watched(MODEL_DEPLOYMENT, fields("spec", "status"), labels={})
"""What users write; Kopf watches it."""

CHILDREN: Final = (
    Watched(INFERENCE_SERVICE, fields("spec", "status"), optional=True),
    Watched(SERVING_RUNTIME, fields("spec"), optional=True),
    Watched(CLUSTER_STORAGE_CONTAINER, fields("spec"), optional=True),
    Watched(VIRTUAL_SERVICE, fields("spec"), optional=True),
    Watched(DESTINATION_RULE, fields("spec"), optional=True),
    Watched(ENVOY_FILTER, fields("spec"), optional=True),
    Watched(AUTHORIZATION_POLICY, fields("spec"), optional=True),
    Watched(DEPLOYMENT, fields("spec.replicas", "spec.template.metadata.annotations", "status")),
    Watched(POD, pod),
    Watched(POD_DISRUPTION_BUDGET, fields("spec")),
    Watched(NETWORK_POLICY, fields("spec")),
    Watched(CONFIG_MAP, fields("data")),
    Watched(GATEWAY, fields("spec"), labels={}, optional=True),
    Watched(REQUEST_AUTHENTICATION, fields("spec"), labels={}, optional=True),
    Watched(FEATURE_STORE, fields("status"), labels={}, optional=True),
)
"""What we make, what KServe makes of it, and what we depend on."""
