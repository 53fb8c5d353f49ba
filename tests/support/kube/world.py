"""The rest of a cluster around the API: KServe, the workload controllers and a node, told what becomes of pods.

    world = World(server)
    world.will("churn-boosted-1a2b3c4d", Crash(exit_code=3, message="digest differs"))
    await world.settle()

Nothing happens but in ``settle``, and all of it at the clock's time: after the clock has moved, settle again. For
tests of a running operator, ``async with world.running():`` settles after every change by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from support.kube.cluster import Cluster
from support.kube.fates import Fate, Ready
from support.kube.kserve import KServe
from support.kube.store import Object
from support.kube.workloads import Workloads

_STEPS_MAX = 100
_LOOK_EVERY_S = 0.05


class World:
    """All controllers of a cluster but the one that is tested."""

    def __init__(self, cluster: Cluster) -> None:
        """Surround ``cluster``; pods are ready at once until a test says otherwise."""
        self._cluster = cluster
        self._fates: dict[str, Fate] = {}
        self.kserve = KServe(cluster)
        self._workloads = Workloads(cluster, self._fate_of)

    def will(self, service: str, fate: Fate) -> None:
        """Say what becomes of the pods of an InferenceService, of living ones too; a pod's name says it of that pod."""
        self._fates[service] = fate

    def load(self, service: str, replicas: int) -> None:
        """Let the load of an InferenceService need ``replicas``; its autoscaler keeps within its bounds."""
        self._workloads.wanted[f"{service}-predictor"] = replicas

    def pods(self, service: str) -> list[Object]:
        """Return the pods of an InferenceService."""
        label = "serving.kserve.io/inferenceservice"
        return [pod for pod in self._cluster.objects("Pod") if pod["metadata"].get("labels", {}).get(label) == service]

    def evict(self, pod: Object) -> None:
        """Let the node throw a pod out; it stays as Failed, and another takes its place."""
        status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
        meta = pod["metadata"]
        self._cluster.set_status("Pod", meta["namespace"], meta["name"], status, manager="kubelet")

    async def settle(self) -> None:
        """Let all controllers work until nothing changes any more; whoever watches is let to run in between.

        Raises:
            RuntimeError: They undo each other's work without end.
        """
        for _ in range(_STEPS_MAX):
            before = self._cluster.store.revision
            self._step()
            await asyncio.sleep(0)
            if self._cluster.store.revision == before:
                return
        raise RuntimeError("the controllers of the cluster do not come to rest")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Settle after every change, and from time to time, for as long as the context lasts."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            self._step()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._cluster.store.everything.grown()

    def _step(self) -> None:
        self._cluster.settle()
        if self._serves("InferenceService"):
            self.kserve.step()
        self._workloads.step()
        self._cluster.settle()

    def _serves(self, kind: str) -> bool:
        return any(served.kind == kind for served in self._cluster.catalog)

    def _fate_of(self, pod: Object) -> Fate:
        meta = pod["metadata"]
        service = meta.get("labels", {}).get("serving.kserve.io/inferenceservice", "")
        return self._fates.get(meta["name"]) or self._fates.get(service) or Ready()
