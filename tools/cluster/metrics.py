"""The metrics server as a host process behind its APIService, for autoscalers and ``kubectl top``."""

from __future__ import annotations

import base64
import ssl
from typing import Any

import probes
from build import Built
from layout import METRICS_PORT, NODE_IP, Layout
from processes import Processes

_GROUP, _VERSION = "metrics.k8s.io", "v1beta1"
API_SERVICE = f"{_VERSION}.{_GROUP}"
_NAMED = {"name": "metrics-server", "namespace": "kube-system"}
_LABELS = {"k8s-app": "metrics-server"}
_RESOLUTION_S = 10
"""How often it asks the kubelet: as often as it lets one choose."""


def start(layout: Layout, built: Built, processes: Processes) -> None:
    """Start the metrics server."""
    pki = layout.pki
    processes.start(
        "metrics-server",
        [
            built.program("metrics-server"),
            f"--kubeconfig={layout.kubeconfig}",
            f"--authentication-kubeconfig={layout.kubeconfig}",
            f"--authorization-kubeconfig={layout.kubeconfig}",
            f"--bind-address={NODE_IP}",
            f"--secure-port={METRICS_PORT}",
            f"--tls-cert-file={pki / 'metrics-server.crt'}",
            f"--tls-private-key-file={pki / 'metrics-server.key'}",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--kubelet-use-node-status-port",
            f"--metric-resolution={_RESOLUTION_S}s",
            f"--kubelet-request-timeout={_RESOLUTION_S - 1}s",
        ],
    )


def wait(layout: Layout, processes: Processes) -> None:
    """Wait until it answers; it has figures of pods half a minute later."""
    context = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
    processes.wait("metrics-server", lambda: probes.answers(f"https://{NODE_IP}:{METRICS_PORT}/livez", context))


def manifests(layout: Layout) -> list[dict[str, Any]]:
    """Return what makes it a part of the API, readable to whoever may read pods."""
    port = {"name": "https", "port": METRICS_PORT, "protocol": "TCP"}
    bundle = base64.b64encode((layout.pki / "ca.crt").read_bytes()).decode()
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {**_NAMED, "labels": _LABELS},
            "spec": {"ports": [{**port, "port": 443, "targetPort": METRICS_PORT}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**_NAMED, "labels": {"kubernetes.io/service-name": _NAMED["name"]}},
            "addressType": "IPv4",
            "ports": [port],
            "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": True}}],
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": API_SERVICE, "labels": _LABELS},
            "spec": {
                "group": _GROUP,
                "version": _VERSION,
                "service": _NAMED,
                "caBundle": bundle,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
            },
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {
                "name": "system:aggregated-metrics-reader",
                "labels": {
                    f"rbac.authorization.k8s.io/aggregate-to-{role}": "true" for role in ("view", "edit", "admin")
                },
            },
            "rules": [{"apiGroups": [_GROUP], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}],
        },
    ]
