"""The kinds that we read or write: where the API serves them, and what of each is kept in memory."""

from __future__ import annotations

from dataclasses import dataclass

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
