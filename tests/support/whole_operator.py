"""A whole operator in this process: Kopf, watches, Lease, queue and the real controller."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from fairlead.clock import SystemClock
from fairlead_operator.assembly import Runtime, Surroundings, build
from fairlead_operator.handlers import Transport, kopf_settings
from fairlead_operator.metrics import OperatorMetrics
from fairlead_operator.platforms.kubernetes.client import KubeClient
from fairlead_operator.platforms.kubernetes.connection import connect
from fairlead_operator.platforms.kubernetes.control import control_of
from fairlead_operator.settings import Settings
from support.cluster_world import RELEASE, Scene
from support.operators import HASTE, QUICK, dice


class WholeOperator:
    """One that runs."""

    def __init__(self, runtime: Runtime, metrics: OperatorMetrics) -> None:
        self.runtime = runtime
        self.metrics = metrics
        self.task = asyncio.create_task(runtime.run())

    def value(self, name: str, **labels: str) -> float:
        """Return the value of a metric now; 0 if it was never counted."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of all samples of a metric that have these labels."""
        return sum(
            sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@asynccontextmanager
async def whole_operator(
    scene: Scene, folder: Path, *, name: str = "one", now: Callable[[], float] = time.monotonic, **given: Any
) -> AsyncIterator[WholeOperator]:
    """Yield an operator of ``scene``; it is stopped in good order unless it has ended."""
    settings = Settings(**{**QUICK, "pod_name": name, "default_release": RELEASE, **given})
    metrics = OperatorMetrics(CollectorRegistry(), "test")
    connection = await connect(kubeconfig=scene.server.kubeconfig(folder))
    client = KubeClient(
        connection, patience=HASTE, observe=metrics.called, randomness=dice(), user_agent=f"fairlead-operator/{name}"
    )

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
    runtime = build(settings, client, control_of, surroundings=surroundings, metrics=metrics, transport_of=transport_of)
    operator = WholeOperator(runtime, metrics)
    try:
        yield operator
        if not operator.task.done():
            runtime.stop()
            await operator.task
    finally:
        operator.task.cancel()
        await asyncio.wait({operator.task})
        await client.close()
