"""A cluster in memory in which nothing is wrong, as the doctor sees it; tests break one thing at a time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fairlead_operator.doctor.areas import cluster_checks
from fairlead_operator.doctor.examine import Examined, examine
from fairlead_operator.doctor.findings import Check, Finding, Level, Scope
from fairlead_operator.doctor.reader import Reader
from support.kube import Kind, KubeApiServer, feast_kinds, istio_kinds, kserve_kinds
from support.operators import CRD, client_of, model_deployment

NAMESPACE, NAME, SYSTEM = "flights", "arrival-delay", "fairlead-system"

_STORE = """\
project: flights
registry: {path: registry.db}
online_store: {type: redis, connection_string: "${FAIRLEAD_REDIS}"}
"""
_QUANTITIES = {"memoryRequest": "1", "memoryLimit": "1", "cpuRequest": "1", "cpuLimit": "1"}
KSERVE_SETTINGS: dict[str, dict[str, Any]] = {
    "deploy": {"defaultDeploymentMode": "Standard"},
    "ingress": {"ingressGateway": "unused/unused", "disableIstioVirtualHost": True},
    "storageInitializer": _QUANTITIES,
    "logger": _QUANTITIES,
    "batcher": _QUANTITIES,
    "agent": _QUANTITIES,
    "inferenceService": {"resource": {}},
    "security": {"autoMountServiceAccountToken": True},
}


def extra_kinds() -> tuple[Kind, ...]:
    """Return the kinds that only the doctor looks at."""
    admission = "admissionregistration.k8s.io"
    return (
        Kind(admission, "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", namespaced=False),
        Kind(admission, "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", namespaced=False),
        Kind("apiregistration.k8s.io", "v1", "APIService", "apiservices", namespaced=False),
        Kind("", "v1", "ResourceQuota", "resourcequotas"),
    )


def healthy(server: KubeApiServer) -> None:
    """Put everything into the cluster that a deployment needs, and a deployment that is Ready."""
    server.load(CRD)
    server.set_status("CustomResourceDefinition", "", "modeldeployments.serving.fairlead.dev", established())
    for made in (*_definitions(), *_operator(), *_kserve(), *_istio(), *_gateway(), *_ours()):
        server.create(made)


def established() -> dict[str, Any]:
    return {"conditions": [{"type": "Established", "status": "True"}]}


@asynccontextmanager
async def doctor_cluster() -> AsyncIterator[KubeApiServer]:
    """Yield a cluster in which nothing is wrong."""
    kinds = [*feast_kinds(), *extra_kinds()]
    async with KubeApiServer(
        kinds=kinds, namespaces=[SYSTEM, NAMESPACE, "kserve", "istio-system", "istio-ingress"]
    ) as server:
        healthy(server)
        yield server


async def examined(
    server: KubeApiServer, folder: Path, scope: Scope | None = None, *, area: str = ""
) -> list[Examined]:
    """Return what the doctor finds; in one area only, if one is given."""
    checks = checks_of(area) if area else cluster_checks()
    async with client_of(server, folder) as client:
        reader = Reader(client, deadline_s=10)
        return [one async for one in examine(checks, reader, scope or Scope(NAMESPACE))]


def checks_of(area: str) -> list[Check[Any]]:
    return [check for check in cluster_checks() if check.area == area]


def of_level(found: list[Examined], level: Level) -> list[tuple[str, Finding]]:
    return [(one.area, finding) for one in found for finding in one.findings if finding.level is level]


def named(kind: str, name: str, namespace: str = "", *, api: str = "v1", **content: Any) -> dict[str, Any]:
    """Return an object; ``labels`` go to its metadata, all else to its root."""
    metadata: dict[str, Any] = {"name": name}
    metadata |= {"namespace": namespace} if namespace else {}
    metadata |= {key: content.pop(key) for key in ("labels", "annotations") if key in content}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **content}


def pod(name: str, namespace: str, labels: dict[str, str], **status: Any) -> dict[str, Any]:
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    spec = {"containers": [{"name": "main", "image": "fairlead.local/server:0.1.0"}]}
    return named("Pod", name, namespace, labels=labels, spec=spec, status=status or ready)


def deployment(name: str, namespace: str, image: str, labels: dict[str, str], **container: Any) -> dict[str, Any]:
    pod_spec = {"serviceAccountName": name, "containers": [{"name": name, "image": image, **container}]}
    template = {"metadata": {"labels": labels}, "spec": pod_spec}
    status = {"availableReplicas": 1, "conditions": [{"type": "Available", "status": "True"}]}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    return named("Deployment", name, namespace, api="apps/v1", labels=labels, spec=spec, status=status)


def _definitions() -> list[dict[str, Any]]:
    group = "serving.kserve.io"
    also = (
        Kind(group, "v1alpha1", "TrainedModel", "trainedmodels"),
        Kind(group, "v1alpha1", "InferenceGraph", "inferencegraphs"),
    )
    return [_definition(kind) for kind in (*kserve_kinds(), *istio_kinds(), *also)]


def _definition(kind: Kind) -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": kind.version, "served": True, "storage": True, "schema": schema}
    names = {"plural": kind.plural, "kind": kind.kind, "singular": kind.singular}
    scope = "Namespaced" if kind.namespaced else "Cluster"
    spec = {"group": kind.group, "names": names, "scope": scope, "versions": [version]}
    api = "apiextensions.k8s.io/v1"
    return named("CustomResourceDefinition", kind.resource, api=api, spec=spec)


def _operator() -> list[dict[str, Any]]:
    labels = {"app.kubernetes.io/name": "fairlead-operator"}
    renewed = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    spec = {"holderIdentity": "fairlead-operator-1_abc", "leaseDurationSeconds": 15, "renewTime": renewed}
    return [
        deployment("fairlead-operator", SYSTEM, "fairlead.local/operator:0.1.0", labels),
        pod("fairlead-operator-1", SYSTEM, labels),
        named("Lease", "fairlead-operator", SYSTEM, api="coordination.k8s.io/v1", spec=spec),
    ]


def _kserve() -> list[dict[str, Any]]:
    service = {"service": {"namespace": "kserve", "name": "kserve-webhook", "path": "/"}}
    rule = {"apiGroups": ["serving.kserve.io"], "resources": ["inferenceservices"]}
    hooks = [
        {"name": "inferenceservice.kserve-webhook-server.defaulter", "clientConfig": service, "rules": [rule]},
        {"name": "inferenceservice.kserve-webhook-server.pod-mutator", "clientConfig": service, "rules": []},
    ]
    labels = {"control-plane": "kserve-controller-manager"}
    return [
        deployment("kserve-controller-manager", "kserve", "kserve/kserve-controller:v0.20.0", labels),
        _slice("kserve-webhook", "kserve"),
        named("MutatingWebhookConfiguration", "kserve", api="admissionregistration.k8s.io/v1", webhooks=hooks),
        named(
            "ConfigMap",
            "inferenceservice-config",
            "kserve",
            data={name: json.dumps(content) for name, content in KSERVE_SETTINGS.items()},
        ),
    ]


def _istio() -> list[dict[str, Any]]:
    service = {"service": {"namespace": "istio-system", "name": "istiod"}}
    hooks = [{"name": "v", "clientConfig": service, "rules": [{"apiGroups": ["networking.istio.io"]}]}]
    values = {"defaultConfig": {"runtimeValues": {"envoy.reloadable_features.match_headers_individually": "false"}}}
    return [
        deployment("istiod", "istio-system", "docker.io/istio/pilot:1.28.1", {"app": "istiod"}),
        _slice("istiod", "istio-system"),
        named("ValidatingWebhookConfiguration", "istio", api="admissionregistration.k8s.io/v1", webhooks=hooks),
        named("ConfigMap", "istio", "istio-system", data={"mesh": json.dumps(values)}),
    ]


def _gateway() -> list[dict[str, Any]]:
    labels = {"istio": "ingressgateway"}
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    return [
        named(
            "Gateway",
            "public",
            "istio-ingress",
            api="networking.istio.io/v1",
            spec={"selector": labels, "servers": [server]},
        ),
        pod("gateway-1", "istio-ingress", labels),
        named("Service", "gateway", "istio-ingress", spec={"selector": labels, "ports": [{"port": 80}]}),
        _slice("gateway", "istio-ingress"),
    ]


def _slice(service: str, namespace: str) -> dict[str, Any]:
    endpoints = [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}]
    labels = {"kubernetes.io/service-name": service}
    return named("EndpointSlice", service, namespace, api="discovery.k8s.io/v1", labels=labels, endpoints=endpoints)


def _ours() -> list[dict[str, Any]]:
    parent = model_deployment(NAME, NAMESPACE)
    parent["spec"]["featureStore"]["secretRef"] = {"name": "feast-redis"}
    variants = [{"name": "logistic", "ready": True, "weight": 100, "revision": "r1", "role": "Control"}]
    parent["status"] = {"observedGeneration": 1, "conditions": conditions(), "variants": variants}
    labels = {
        "app.kubernetes.io/managed-by": "fairlead",
        "serving.fairlead.dev/deployment": NAME,
        "serving.fairlead.dev/deployment-namespace": NAMESPACE,
    }
    return [
        parent,
        pod("r1-predictor-1", NAMESPACE, labels),
        named(
            "ConfigMap", "feast-client", NAMESPACE, data={"feature_store.yaml": _STORE}, binaryData={"registry.db": ""}
        ),
        named("Secret", "feast-redis", NAMESPACE, data={"FAIRLEAD_REDIS": "eA=="}),
        named("APIService", "v1beta1.metrics.k8s.io", api="apiregistration.k8s.io/v1", status=available()),
    ]


def available() -> dict[str, Any]:
    return {"conditions": [{"type": "Available", "status": "True"}]}


def conditions(**changed: tuple[str, str, str]) -> list[dict[str, Any]]:
    """Return the conditions of a deployment that is well, but for ``changed``: type -> status, reason, message."""
    types = ("Ready", "Servable", "VariantsReady", "FeaturesReady", "RoutingReady", "ExperimentHealthy")
    well = dict.fromkeys(types, ("True", "AsSpecified", "all is well"))
    well |= {"Progressing": ("False", "AsSpecified", "nothing is left to do")}
    return [
        {
            "type": name,
            "status": status,
            "reason": reason,
            "message": message,
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        for name, (status, reason, message) in (well | changed).items()
    ]
