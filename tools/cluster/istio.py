"""istiod as a host process, and a gateway: a Deployment of plain Envoys that take their configuration from it."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import probes
import yaml
from build import Built
from host import write
from layout import (
    GATEWAY_ADMIN_PORT,
    GATEWAY_IP,
    GATEWAY_PORT,
    ISTIO_WEBHOOK_PORT,
    ISTIOD_URL,
    NODE_IP,
    XDS_PORT,
    Layout,
)
from processes import Processes

SYSTEM = "istio-system"
INGRESS = "istio-ingress"
"""Namespace of the gateway's pods and of the Gateway ``public``."""
SELECTOR = {"istio": "ingressgateway"}
_VERSION = "1.31.0"
_LISTENER_PORT = 8080
_GROUPS = ["security.istio.io", "networking.istio.io", "telemetry.istio.io", "extensions.istio.io"]
_MESH = {
    "enableAutoMtls": False,
    "enableTracing": False,
    "enablePrometheusMerge": False,
    "ingressControllerMode": "OFF",
    "defaultProviders": {},
}
_ENVIRONMENT = {
    "ENABLE_CA_SERVER": "false",
    "ENABLE_LEADER_ELECTION": "false",
    "INJECT_ENABLED": "false",
    "INJECTION_WEBHOOK_CONFIG_NAME": "",
    # Filters that only Istio's own build of Envoy has.
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    "PILOT_ENABLE_ALPN_FILTER": "false",
    "PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER": "false",
    # Changes reach the gateway in tens of milliseconds instead of hundreds.
    "PILOT_DEBOUNCE_AFTER": "10ms",
    "POD_NAME": "istiod-0",
    "POD_NAMESPACE": SYSTEM,
    "VALIDATION_WEBHOOK_CONFIG_NAME": "",
}


@dataclass(frozen=True, slots=True)
class Envoy:
    """Where the gateway's pods have Envoy."""

    image: str
    program: str
    """Path in the image."""


def start(layout: Layout, built: Built, processes: Processes) -> None:
    """Start istiod."""
    mesh = layout.settings / "mesh.yaml"
    write(mesh, yaml.safe_dump(_MESH))
    processes.start(
        "istiod",
        [
            built.program("pilot-discovery"),
            "discovery",
            f"--kubeconfig={layout.kubeconfig}",
            "--registries=Kubernetes",
            "--clusterID=Kubernetes",
            f"--meshConfig={mesh}",
            f"--httpAddr={ISTIOD_URL.removeprefix('http://')}",
            f"--grpcAddr={NODE_IP}:{XDS_PORT}",
            "--monitoringAddr=127.0.0.1:15014",
            "--secureGRPCAddr=",
            f"--httpsAddr=127.0.0.1:{ISTIO_WEBHOOK_PORT}",
            f"--tlsCertFile={layout.pki / 'webhook.crt'}",
            f"--tlsKeyFile={layout.pki / 'webhook.key'}",
            f"--caCertFile={layout.pki / 'ca.crt'}",
            "--ctrlz_port=0",
        ],
        _ENVIRONMENT,
    )


def wait(processes: Processes) -> None:
    """Wait until istiod is ready."""
    processes.wait("istiod", lambda: probes.answers(f"{ISTIOD_URL}/ready"))


def namespaces() -> list[dict[str, Any]]:
    """Return istiod's and the gateway's namespaces; the gateway's is as restricted as that of any workload."""
    enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": INGRESS, "labels": enforce}},
    ]


def webhook(layout: Layout) -> dict[str, Any]:
    """Return the registration of istiod's validation."""
    bundle = base64.b64encode((layout.pki / "ca.crt").read_bytes()).decode()
    rule = {"operations": ["CREATE", "UPDATE"], "apiGroups": _GROUPS, "apiVersions": ["*"], "resources": ["*"]}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "istio-validator"},
        "webhooks": [
            {
                "name": "rev.validation.istio.io",
                "clientConfig": {"url": f"https://127.0.0.1:{ISTIO_WEBHOOK_PORT}/validate", "caBundle": bundle},
                "rules": [rule],
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "timeoutSeconds": 5,
            }
        ],
    }


def gateway_pods(envoy: Envoy) -> list[dict[str, Any]]:
    """Return the gateway's pods and Service."""
    labels = {**SELECTOR, "app": "istio-ingressgateway"}
    named = {"name": "istio-ingressgateway", "namespace": INGRESS}
    ports = [
        {"name": "http2", "port": GATEWAY_PORT, "targetPort": _LISTENER_PORT},
        {"name": "http-admin", "port": GATEWAY_ADMIN_PORT, "targetPort": GATEWAY_ADMIN_PORT},
    ]
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {**named, "name": "envoy-bootstrap"},
            "data": {"bootstrap.json": json.dumps(_bootstrap())},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {**named, "labels": labels},
            "spec": {"clusterIP": GATEWAY_IP, "selector": labels, "ports": ports},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {**named, "labels": labels},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": _gateway_pod(envoy)},
            },
        },
    ]


def gateway() -> dict[str, Any]:
    """Return the Gateway ``istio-ingress/public``, open to all hosts."""
    server = {"port": {"number": GATEWAY_PORT, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "public", "namespace": INGRESS},
        "spec": {"selector": SELECTOR, "servers": [server]},
    }


def _gateway_pod(envoy: Envoy) -> dict[str, Any]:
    fields = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "POD_IP": "status.podIP"}
    node = "router~$(POD_IP)~$(POD_NAME).$(POD_NAMESPACE)~$(POD_NAMESPACE).svc.cluster.local"
    container = {
        "name": "istio-proxy",
        "image": envoy.image,
        "command": [envoy.program],
        "args": [
            *("--config-path", "/etc/envoy/bootstrap.json"),
            *("--service-node", node),
            *("--service-cluster", f"istio-ingressgateway.{INGRESS}"),
            *("--concurrency", "1"),
            *("--log-level", "warning"),
            "--disable-hot-restart",
        ],
        "env": [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()],
        "ports": [{"name": "http", "containerPort": _LISTENER_PORT}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": GATEWAY_ADMIN_PORT}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "bootstrap", "mountPath": "/etc/envoy"}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108  # of the pod
    }
    return {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1337,
            "runAsGroup": 1337,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [
            {"name": "bootstrap", "configMap": {"name": "envoy-bootstrap"}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


_RUNTIME = {
    # What Istio's own agent puts into the bootstrap of every proxy: istiod cannot tell how long a regex's program is.
    "re2.max_program_size.error_level": 32768,
    # A platform's choice (proxy.istio.io/config, runtimeValues): a header given twice is one value with a comma.
    "envoy.reloadable_features.match_headers_individually": False,
}


def _bootstrap() -> dict[str, Any]:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    ads = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    istiod = {"endpoint": {"address": _socket(NODE_IP, XDS_PORT)}}
    return {
        "node": {
            "metadata": {
                "CLUSTER_ID": "Kubernetes",
                "NAMESPACE": INGRESS,
                "ISTIO_VERSION": _VERSION,
                "LABELS": {**SELECTOR, "app": "istio-ingressgateway"},
            }
        },
        "admin": {"address": _socket("0.0.0.0", GATEWAY_ADMIN_PORT)},  # noqa: S104  # probes and tests ask it
        "layered_runtime": {"layers": [{"name": "istio", "static_layer": _RUNTIME}]},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
            "lds_config": ads,
            "cds_config": ads,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "xds-grpc",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": {
                        options: {
                            "@type": f"type.googleapis.com/{options}",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                    "load_assignment": {"cluster_name": "xds-grpc", "endpoints": [{"lb_endpoints": [istiod]}]},
                }
            ]
        },
    }


def _socket(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}
