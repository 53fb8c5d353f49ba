"""How much an operator takes: cold start, memory and idle CPU with many ModelDeployments and their objects."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead_operator.runtime.keys import ObjectKey
from support.kube import KubeApiServer, istio_kinds, kserve_kinds
from support.operator_process import OperatorProcess, start
from support.operators import CRD, labels_of, model_deployment
from support.waiting import until

CHILDREN_EACH = 12


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one operator process."""

    deployments: int
    stored_objects: int
    cold_start_s: float
    """From the start of the process until every ModelDeployment has been reconciled once."""
    cold_cpu_s: float
    now_mib: float
    most_mib: float
    steady_cpu_percent: float
    """Of one core, while nothing happens."""

    def __str__(self) -> str:
        return (
            f"{self.deployments} ModelDeployments, {self.stored_objects} objects: cold start {self.cold_start_s:.1f} s "
            f"({self.cold_cpu_s:.1f} s CPU), {self.now_mib:.0f} MiB (at most {self.most_mib:.0f}), "
            f"idle CPU {self.steady_cpu_percent:.2f} % of a core"
        )


async def measured(folder: Path, *, deployments: int, settle_s: float, steady_s: float) -> Figures:
    """Start an operator whose controller does nothing, and measure it.

    Args:
        folder: For its kubeconfig.
        deployments: How many ModelDeployments there are, each with twelve objects.
        settle_s: How long it may settle after it has reconciled all; Kopf's own workers end 5 s after the first list.
        steady_s: How long its idle CPU is measured.
    """
    kinds = [*kserve_kinds(), *istio_kinds()]
    async with KubeApiServer(kinds=kinds, namespaces=["flights"], collects_garbage=False) as server:
        server.load(CRD)
        for number in range(deployments):
            for made in world_of(ObjectKey("flights", f"m{number:04}")):
                server.create(made)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        begun = time.monotonic()
        process = await start("idle", server.kubeconfig(folder), port)
        try:
            return await _figures(process, begun, deployments, settle_s, steady_s)
        finally:
            process.process.terminate()
            await process.process.wait()


async def _figures(
    process: OperatorProcess, begun: float, deployments: int, settle_s: float, steady_s: float
) -> Figures:
    async def all_reconciled() -> bool:
        return await reconciled(process) >= deployments

    await until(all_reconciled, timeout_s=120)
    cold_start_s, cold_cpu_s = time.monotonic() - begun, process.cpu_s()
    await asyncio.sleep(settle_s)
    before, cpu_before = time.monotonic(), process.cpu_s()
    await asyncio.sleep(steady_s)
    used, passed = process.cpu_s() - cpu_before, time.monotonic() - before
    now_mib, most_mib = process.resident_mib()
    return Figures(
        deployments=deployments,
        stored_objects=int(await total(process, "fairlead_stored_objects{")),
        cold_start_s=cold_start_s,
        cold_cpu_s=cold_cpu_s,
        now_mib=now_mib,
        most_mib=most_mib,
        steady_cpu_percent=100 * used / passed,
    )


async def reconciled(process: OperatorProcess) -> float:
    """Return how many reconciles have ended well."""
    return await total(process, 'fairlead_reconciles_total{result="success"}')


async def total(process: OperatorProcess, prefix: str) -> float:
    """Return the sum of all samples whose line begins so."""
    _, text = await process.ask("metrics")
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(prefix))


def world_of(key: ObjectKey) -> Iterator[dict[str, Any]]:
    """Yield a ModelDeployment and twelve objects that belong to it, as large as they are in a cluster."""
    yield model_deployment(key.name, key.namespace)
    for variant in ("logistic", "boosted"):
        name = f"{key.name}-{variant}-6f1c9d00"
        predictor = {"minReplicas": 1, "maxReplicas": 3, "model": {"modelFormat": {"name": "onnx"}, "env": _ENV}}
        status = {"conditions": _CONDITIONS, "modelStatus": {"states": {"targetModelState": "Loaded"}}}
        yield _child(
            "serving.kserve.io/v1beta1", "InferenceService", key, name, {"predictor": predictor}, status=status
        )
        template = {"metadata": {"annotations": {"a": "b"}}, "spec": {"containers": _CONTAINERS}}
        spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
        yield _child("apps/v1", "Deployment", key, f"{name}-predictor", spec, status={"conditions": _CONDITIONS})
        containers = [{"name": "kserve-container", "ready": True, "state": {"running": {"startedAt": "2026-11-21"}}}]
        running = {"phase": "Running", "conditions": _CONDITIONS, "containerStatuses": containers}
        yield _child("v1", "Pod", key, f"{name}-predictor-x7", {"containers": _CONTAINERS}, status=running)
    route = [{"destination": {"host": f"{key.name}-{part}.flights.svc.cluster.local"}, "weight": 1} for part in "abcd"]
    http = [{"name": f"route-{number}", "route": route} for number in range(6)]
    istio, security = "networking.istio.io/v1", "security.istio.io/v1"
    yield _child(istio, "VirtualService", key, key.name, {"hosts": [f"{key.name}.example.org"], "http": http})
    yield _child(istio, "DestinationRule", key, key.name, {"host": key.name})
    yield _child(
        "networking.istio.io/v1alpha3", "EnvoyFilter", key, f"fairlead-flights-{key.name}", {"configPatches": []}
    )
    yield _child(security, "AuthorizationPolicy", key, f"fairlead-flights-{key.name}", {"rules": []})
    yield _child("networking.k8s.io/v1", "NetworkPolicy", key, key.name, {"podSelector": {}})
    yield _child("policy/v1", "PodDisruptionBudget", key, key.name, {"maxUnavailable": 1})


def _child(
    api_version: str, kind: str, key: ObjectKey, name: str, spec: dict[str, Any], **more: dict[str, Any]
) -> dict[str, Any]:
    annotations = {"serving.fairlead.dev/revision": name, "kubectl.kubernetes.io/last-applied-configuration": "x" * 800}
    metadata = {"name": name, "namespace": key.namespace, "labels": labels_of(key), "annotations": annotations}
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
        **more,
    }


_ENV = [{"name": f"VARIABLE_{number}", "value": "x" * 40} for number in range(15)]
_CONTAINERS = [{"name": "kserve-container", "image": "fairlead.local/server:0.1.0", "args": ["--x"] * 20, "env": _ENV}]
_CONDITIONS = [
    {
        "type": f"Condition{number}",
        "status": "True",
        "reason": "AllIsWell",
        "message": "x" * 60,
        "lastTransitionTime": "2026-11-21T07:00:00Z",
    }
    for number in range(4)
]
