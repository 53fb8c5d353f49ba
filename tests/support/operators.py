"""The operator's runtime against the API server in memory: clients, objects, whole operators."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from fairlead.clock import SystemClock
from fairlead_operator.assembly import Access, Control, Runtime, Surroundings, build
from fairlead_operator.handlers import Transport, kopf_settings
from fairlead_operator.metrics import OperatorMetrics
from fairlead_operator.platforms.kubernetes.client import CallObserver, KubeClient, Patience
from fairlead_operator.platforms.kubernetes.connection import connect
from fairlead_operator.platforms.kubernetes.kinds import (
    CHILDREN,
    CONFIG_MAP,
    DEPLOYMENT_LABEL,
    DEPLOYMENT_NAMESPACE_LABEL,
    MANAGED_BY,
    MODEL_DEPLOYMENT,
    Kind,
    Watched,
)
from fairlead_operator.runtime.keys import ObjectKey
from fairlead_operator.runtime.resync import Sweep
from fairlead_operator.settings import Settings
from support.kube import KubeApiServer

CRD = Path(__file__).parents[2] / "operator/crds/serving.fairlead.dev_modeldeployments.yaml"
HASTE = Patience(attempt_s=1.0, first_pause_s=0.01, longest_pause_s=0.05)
QUICK = {
    "own_namespace": "default",
    "lease_duration_s": 1.5,
    "lease_renew_deadline_s": 1.0,
    "lease_retry_s": 0.1,
    "http_port": 0,
    "resync_interval_s": 600,
}


def dice(seed: int = 4) -> random.Random:
    """Return randomness that is the same each time."""
    return random.Random(seed)  # noqa: S311 -- spreads pauses


@asynccontextmanager
async def client_of(
    server: KubeApiServer,
    folder: Path,
    *,
    patience: Patience = HASTE,
    observe: CallObserver = lambda *_: None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[KubeClient]:
    """Yield a client of ``server`` that is quick to try again."""
    connection = await connect(kubeconfig=server.kubeconfig(folder))
    client = KubeClient(connection, patience=patience, observe=observe, randomness=dice(), sleep=sleep)
    try:
        yield client
    finally:
        await client.close()


def config_map(name: str, *, owner: ObjectKey | None = None, namespace: str = "flights", **data: str) -> dict[str, Any]:
    """Return a ConfigMap, with our labels if it has an owner."""
    metadata: dict[str, Any] = {"name": name, "namespace": namespace}
    if owner:
        metadata["labels"] = labels_of(owner)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def labels_of(owner: ObjectKey) -> dict[str, str]:
    """Return the labels of what belongs to ``owner``."""
    return {MANAGED_BY: "fairlead", DEPLOYMENT_LABEL: owner.name, DEPLOYMENT_NAMESPACE_LABEL: owner.namespace}


def model_deployment(name: str, namespace: str = "flights") -> dict[str, Any]:
    """Return the smallest ModelDeployment."""
    model = {"uri": f"s3://models/{name}.onnx", "digest": f"sha256:{0:064x}"}
    return {
        "apiVersion": MODEL_DEPLOYMENT.api_version,
        "kind": MODEL_DEPLOYMENT.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "featureStore": {"configMapRef": {"name": "feast-client"}},
            "variants": [{"name": "logistic", "role": "Control", "model": model}],
        },
    }


class Noting:
    """A controller that notes its runs, and marks each of its keys by a ConfigMap."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.runs: list[ObjectKey] = []
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.written = 0

    async def reconcile(self, key: ObjectKey) -> float | None:
        self.runs.append(key)
        self.entered.set()
        await self.gate.wait()
        if self.access.objects.get(MODEL_DEPLOYMENT, key) is None:
            return None
        mark = config_map(f"{key.name}-mark", owner=key, namespace=key.namespace, by=self.access.settings.pod_name)
        if self.access.objects.get(CONFIG_MAP, ObjectKey(key.namespace, f"{key.name}-mark")) is None:
            await self.access.api.apply(CONFIG_MAP, mark)
            self.written += 1
        return None


class Operator:
    """An operator in this process."""

    def __init__(self, runtime: Runtime, controller: Noting, metrics: OperatorMetrics) -> None:
        self.runtime = runtime
        self.controller = controller
        self.metrics = metrics
        self.task = asyncio.create_task(runtime.run())

    async def stop(self) -> None:
        self.runtime.stop()
        await self.task

    def value(self, name: str, **labels: str) -> float:
        """Return the value of a metric now; 0 if it was never counted."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def operator_of(
    server: KubeApiServer,
    folder: Path,
    *,
    name: str = "operator-0",
    now: Callable[[], float] = time.monotonic,
    children: Sequence[Watched] = CHILDREN,
    kopf: bool = False,
    sweeps: Sequence[Sweep] = (),
    dependents: Callable[[Kind, ObjectKey], Sequence[ObjectKey]] = lambda _kind, _key: (),
    **given: Any,
) -> AsyncIterator[Operator]:
    """Yield an operator that runs, with a controller that notes; it is stopped in the end if it has not ended."""
    settings = Settings(**{**QUICK, "pod_name": name, **given})
    metrics = OperatorMetrics(CollectorRegistry(), "test")
    connection = await connect(kubeconfig=server.kubeconfig(folder))
    client = KubeClient(connection, patience=HASTE, observe=metrics.called, randomness=dice())
    made: list[Noting] = []

    def control_of(access: Access) -> Control:
        made.append(Noting(access))
        return Control(made[0], sweeps, dependents)

    def transport_of(parents: Any) -> Callable[[], Awaitable[None]]:
        return Transport(
            connection,
            kopf_settings(attempt_s=2, watch_timeout_s=settings.watch_timeout_s, silence_s=settings.watch_silence_s),
            lambda resource, deleted: parents.heard(resource, deleted=deleted),
            namespaces=settings.namespaces,
            now=now,
            randomness=dice(),
            restarted=metrics.transport_restarts.inc,
        ).run

    surroundings = Surroundings(
        now=now, clock=SystemClock(), randomness=dice(), new_id=lambda: uuid.uuid4().hex, namespace="default"
    )
    runtime = build(
        settings,
        client,
        control_of,
        surroundings=surroundings,
        metrics=metrics,
        transport_of=transport_of if kopf else None,
        children=children,
    )
    operator = Operator(runtime, made[0], metrics)
    try:
        yield operator
        if not operator.task.done():
            await operator.stop()
    finally:
        operator.task.cancel()
        await asyncio.wait({operator.task})
        await client.close()
