"""The kinds that every cluster has, and those that KServe, Istio and Feast bring.

Built-in schemas are only as deep as server-side apply needs: which lists are keyed, which maps are whole values, and a
few defaults. What they do not name is kept as it is.
"""

from __future__ import annotations

from typing import Any

from support.kube.kinds import Kind, Schema


def _open(**properties: Schema) -> dict[str, Any]:
    return {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": properties}


def _keyed(
    *keys: str, defaults: dict[str, Any] | None = None, whole: bool = False, **properties: Schema
) -> dict[str, Any]:
    named = {key: {"default": value} for key, value in (defaults or {}).items()}
    return {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": list(keys),
        "items": _open(**named, **properties) | ({"x-kubernetes-map-type": "atomic"} if whole else {}),
    }


_SET: dict[str, Any] = {"type": "array", "x-kubernetes-list-type": "set"}
_WHOLE: dict[str, Any] = _open() | {"x-kubernetes-map-type": "atomic"}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_CONDITIONS = _keyed("type")

METADATA = _open(
    labels=_TEXTS,
    annotations=_TEXTS,
    finalizers=_SET,
    ownerReferences=_keyed("uid", whole=True),
)
"""The schema of ``metadata``, the same for all kinds."""


def rooted(schema: Schema) -> Schema:
    """Return a schema with what every object has at its root, whether the definition says so or not."""
    text = {"type": "string"}
    every = {"apiVersion": text, "kind": text, "metadata": METADATA}
    return {**schema, "properties": {**schema.get("properties", {}), **every}}


_CONTAINER: dict[str, Any] = {
    "ports": _keyed("containerPort", "protocol", defaults={"protocol": "TCP"}),
    "env": _keyed("name", valueFrom=_open(secretKeyRef=_WHOLE, configMapKeyRef=_WHOLE, fieldRef=_WHOLE)),
    "volumeMounts": _keyed("mountPath"),
    "resources": _open(claims=_keyed("name")),
}
_POD_SPEC = _open(
    containers=_keyed("name", **_CONTAINER),
    initContainers=_keyed("name", **_CONTAINER),
    volumes=_keyed("name"),
    imagePullSecrets=_keyed("name"),
    nodeSelector=_WHOLE,
    tolerations={"type": "array"},
    topologySpreadConstraints=_keyed("topologyKey", "whenUnsatisfiable", labelSelector=_WHOLE),
)
_POD_TEMPLATE = _open(metadata=METADATA, spec=_POD_SPEC)
_STATUS = _open(conditions=_CONDITIONS)


def _kind(
    group: str, version: str, kind: str, plural: str, *short_names: str, schema: Schema | None = None, **more: Any
) -> Kind:
    schema = rooted(_open() if schema is None else schema)
    return Kind(group, version, kind, plural, short_names=short_names, schema=schema, **more)


def builtin_kinds() -> tuple[Kind, ...]:
    """Return the kinds that the server always serves."""
    return (*_core(), *_apps(), *_networking(), *_access(), *_extending())


def _core() -> tuple[Kind, ...]:
    service = _open(
        spec={"default": {}}
        | _open(
            selector=_WHOLE,
            ports=_keyed("port", "protocol", defaults={"protocol": "TCP"}),
            type={"default": "ClusterIP"},
            sessionAffinity={"default": "None"},
        ),
        status=_STATUS,
    )
    namespace = _open(
        spec={"default": {}} | _open(finalizers={"default": ["kubernetes"]}),
        status={"default": {}} | _open(phase={"default": "Active"}, conditions=_CONDITIONS),
    )
    pod = _open(spec=_POD_SPEC, status=_open(conditions=_CONDITIONS, phase={"default": "Pending"}))
    event: dict[str, Any] = {"schema": _open(involvedObject=_WHOLE), "categories": ()}
    return (
        _kind("", "v1", "ConfigMap", "configmaps", "cm", schema=_open(data=_TEXTS, binaryData=_TEXTS)),
        _kind("", "v1", "Secret", "secrets", schema=_open(data=_TEXTS, stringData=_TEXTS, type={"default": "Opaque"})),
        _kind(
            "",
            "v1",
            "Service",
            "services",
            "svc",
            status=True,
            answers_deleted=True,
            categories=("all",),
            schema=service,
        ),
        _kind(
            "",
            "v1",
            "Namespace",
            "namespaces",
            "ns",
            namespaced=False,
            status=True,
            answers_deleted=True,
            schema=namespace,
        ),
        _kind(
            "",
            "v1",
            "Pod",
            "pods",
            "po",
            status=True,
            generation=True,
            answers_deleted=True,
            categories=("all",),
            schema=pod,
        ),
        _kind("", "v1", "ServiceAccount", "serviceaccounts", "sa", answers_deleted=True),
        _kind("", "v1", "Event", "events", "ev", **event),
        _kind("events.k8s.io", "v1", "Event", "events", "ev", **event),
        _kind("coordination.k8s.io", "v1", "Lease", "leases"),
    )


def _apps() -> tuple[Kind, ...]:
    workload = _open(spec=_open(selector=_WHOLE, template=_POD_TEMPLATE, replicas={"default": 1}), status=_STATUS)
    autoscaler = _open(spec=_open(scaleTargetRef=_WHOLE), status=_open(conditions=_CONDITIONS))
    budget = _open(spec=_open(selector=_WHOLE), status=_STATUS)
    served: dict[str, Any] = {"status": True, "generation": True}
    return (
        _kind("apps", "v1", "Deployment", "deployments", "deploy", **served, categories=("all",), schema=workload),
        _kind("apps", "v1", "ReplicaSet", "replicasets", "rs", **served, categories=("all",), schema=workload),
        _kind(
            "autoscaling",
            "v2",
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
            "hpa",
            status=True,
            categories=("all",),
            schema=autoscaler,
        ),
        _kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", **served, schema=budget),
    )


def _networking() -> tuple[Kind, ...]:
    policy = _open(spec=_open(podSelector=_WHOLE))
    return (
        _kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", "netpol", generation=True, schema=policy),
        _kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", generation=True),
    )


def _access() -> tuple[Kind, ...]:
    rbac, binding = "rbac.authorization.k8s.io", _open(roleRef=_WHOLE)
    review: dict[str, Any] = {"ephemeral": True}
    return (
        _kind(rbac, "v1", "Role", "roles"),
        _kind(rbac, "v1", "RoleBinding", "rolebindings", schema=binding),
        _kind(rbac, "v1", "ClusterRole", "clusterroles", namespaced=False),
        _kind(rbac, "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False, schema=binding),
        _kind(
            "authorization.k8s.io",
            "v1",
            "SelfSubjectAccessReview",
            "selfsubjectaccessreviews",
            namespaced=False,
            **review,
        ),
        _kind("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", namespaced=False, **review),
    )


def _extending() -> tuple[Kind, ...]:
    definition = _kind(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "crd",
        "crds",
        namespaced=False,
        status=True,
        generation=True,
        answers_deleted=True,
        categories=("api-extensions",),
        schema=_open(status=_STATUS),
    )
    return (definition,)


def _custom(group: str, version: str, kind: str, plural: str, *short_names: str, **more: Any) -> Kind:
    schema = _open(spec=_open(), status=_open())
    return _kind(
        group, version, kind, plural, *short_names, custom=True, status=True, generation=True, schema=schema, **more
    )


def kserve_kinds() -> tuple[Kind, ...]:
    """Return KServe's kinds that Fairlead meets, with schemas that take anything."""
    group = "serving.kserve.io"
    return (
        _custom(group, "v1beta1", "InferenceService", "inferenceservices", "isvc"),
        _custom(group, "v1alpha1", "ServingRuntime", "servingruntimes"),
        _custom(group, "v1alpha1", "ClusterServingRuntime", "clusterservingruntimes", namespaced=False),
        _custom(group, "v1alpha1", "ClusterStorageContainer", "clusterstoragecontainers", namespaced=False),
    )


def istio_kinds() -> tuple[Kind, ...]:
    """Return Istio's kinds that Fairlead meets, with schemas that take anything."""
    networking, security = "networking.istio.io", "security.istio.io"
    return (
        _custom(networking, "v1", "VirtualService", "virtualservices", "vs"),
        _custom(networking, "v1", "DestinationRule", "destinationrules", "dr"),
        _custom(networking, "v1", "Gateway", "gateways", "gw"),
        _custom(networking, "v1", "ServiceEntry", "serviceentries", "se"),
        _custom(networking, "v1alpha3", "EnvoyFilter", "envoyfilters"),
        _custom(security, "v1", "AuthorizationPolicy", "authorizationpolicies", "ap"),
        _custom(security, "v1", "RequestAuthentication", "requestauthentications", "ra"),
        _custom(security, "v1", "PeerAuthentication", "peerauthentications", "pa"),
    )


def feast_kinds() -> tuple[Kind, ...]:
    """Return the kinds of Feast's operator."""
    return (_custom("feast.dev", "v1", "FeatureStore", "featurestores", "feast"),)
