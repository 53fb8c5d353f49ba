"""KServe's controller as a host process: custom resources, settings, webhooks by address."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from typing import Any

import probes
import yaml
from build import Built
from kubectl import Kubectl
from layout import KSERVE_WEBHOOK_PORT, Layout
from processes import Processes

NAMESPACE = "kserve"
_RELEASE = "v0.20.0"
_HEALTH = "127.0.0.1:29081"
_KINDS = ("clusterservingruntimes", "inferencegraphs", "inferenceservices", "servingruntimes", "trainedmodels")
CRDS = ("clusterstoragecontainers", *_KINDS)
"""Plurals of the custom resources that the controller needs, group ``serving.kserve.io``."""


def crd_files(built: Built) -> Iterator[Any]:
    """Yield the files of the custom resources."""
    folder = built.manifests("kserve") / "crd"
    yield from (folder / f"serving.kserve.io_{kind}.yaml" for kind in _KINDS)
    yield folder / "clusterstoragecontainer/serving.kserve.io_clusterstoragecontainers.yaml"


def namespace() -> dict[str, Any]:
    """Return its namespace; the label keeps its webhooks out of it."""
    labels = {"control-plane": "kserve-controller-manager"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def settings() -> dict[str, Any]:
    """Return the ConfigMap ``inferenceservice-config``: no ingress of KServe's own, images that exist nowhere."""
    limits = {"memoryRequest": "100Mi", "memoryLimit": "1Gi", "cpuRequest": "100m", "cpuLimit": "1"}
    agent = {"image": f"kserve/agent:{_RELEASE}", **limits}
    values: dict[str, Any] = {
        "deploy": {"defaultDeploymentMode": "Standard"},
        "ingress": {
            "ingressGateway": "unused/unused",
            "ingressDomain": "example.com",
            "disableIstioVirtualHost": True,
            "disableIngressCreation": True,
        },
        "storageInitializer": {
            "image": f"kserve/storage-initializer:{_RELEASE}",
            **limits,
            "enableModelcar": True,
            "cpuModelcar": "10m",
            "memoryModelcar": "15Mi",
            "uidModelcar": 1010,
        },
        "logger": {**agent, "defaultUrl": "http://default-broker"},
        "batcher": {**agent, "maxBatchSize": "32", "maxLatency": "5000"},
        "agent": agent,
        "inferenceService": {
            "resource": {"cpuLimit": "1", "memoryLimit": "2Gi", "cpuRequest": "1", "memoryRequest": "2Gi"}
        },
        "metricsAggregator": {"enableMetricAggregation": "false", "enablePrometheusScraping": "false"},
        "security": {"autoMountServiceAccountToken": True},
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "inferenceservice-config", "namespace": NAMESPACE},
        "data": {name: json.dumps(value) for name, value in values.items()},
    }


def start(layout: Layout, built: Built, processes: Processes) -> None:
    """Start the controller."""
    if processes.alive("kserve-manager"):
        return
    # It looks for its certificate in a folder of the temporary folder.
    certificates = layout.run / "kserve/k8s-webhook-server/serving-certs"
    certificates.mkdir(parents=True, exist_ok=True)
    for suffix in ("crt", "key"):
        shutil.copyfile(layout.pki / f"webhook.{suffix}", certificates / f"tls.{suffix}")
    processes.start(
        "kserve-manager",
        [
            built.program("kserve-manager"),
            "--metrics-addr=127.0.0.1:29080",
            f"--health-probe-addr={_HEALTH}",
            f"--webhook-port={KSERVE_WEBHOOK_PORT}",
            "--leader-elect=false",
            "--zap-encoder=console",
        ],
        {"KUBECONFIG": str(layout.kubeconfig), "POD_NAMESPACE": NAMESPACE, "TMPDIR": str(layout.run / "kserve")},
    )


def wait(processes: Processes) -> None:
    """Wait until the controller is ready."""
    processes.wait("kserve-manager", lambda: probes.answers(f"http://{_HEALTH}/readyz"))


def apply_webhooks(layout: Layout, built: Built, kubectl: Kubectl) -> None:
    """Register the webhooks; only when they answer, since without an answer nothing of KServe can be written."""
    bundle = base64.b64encode((layout.pki / "ca.crt").read_bytes()).decode()
    text = (built.manifests("kserve") / "webhooks.yaml").read_text()
    kubectl.apply(*(_by_address(manifest, bundle) for manifest in yaml.load_all(text, yaml.CSafeLoader) if manifest))


def _by_address(manifest: dict[str, Any], bundle: str) -> dict[str, Any]:
    def moved(webhook: dict[str, Any]) -> dict[str, Any]:
        path = webhook["clientConfig"]["service"]["path"]
        return {
            **webhook,
            "clientConfig": {"url": f"https://127.0.0.1:{KSERVE_WEBHOOK_PORT}{path}", "caBundle": bundle},
        }

    metadata = {"name": manifest["metadata"]["name"]}
    return {**manifest, "metadata": metadata, "webhooks": [moved(webhook) for webhook in manifest["webhooks"]]}
