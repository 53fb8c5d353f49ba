"""What no deployment's own reconcile would ever see: objects whose owner is gone, and runtimes that nobody uses."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from fairlead_operator.assembly import Access
from fairlead_operator.platforms.kubernetes.api import Resource
from fairlead_operator.platforms.kubernetes.errors import NotFound
from fairlead_operator.platforms.kubernetes.kinds import (
    AUTHORIZATION_POLICY,
    CLUSTER_STORAGE_CONTAINER,
    ENVOY_FILTER,
    INFERENCE_SERVICE,
    PARENT,
    SERVING_RUNTIME,
    Kind,
)
from fairlead_operator.platforms.kubernetes.render.serving_runtime import is_runtime_used
from fairlead_operator.platforms.kubernetes.render.unanswered_filter import UNANSWERED_LABELS
from fairlead_operator.platforms.kubernetes.store import key_of
from fairlead_operator.runtime.keys import ObjectKey

_log = logging.getLogger(__name__)

_FOREIGN = (ENVOY_FILTER, AUTHORIZATION_POLICY)
"""Kinds that stand in gateways' namespaces, where nothing can own them."""

_UNUSED_S = 600.0
"""How long a ServingRuntime may be without an InferenceService: it is made before the first."""


@dataclass(frozen=True, slots=True)
class Sweeps:
    """Run at each resync, by the leader."""

    access: Access

    async def orphans(self) -> None:
        """Remove filters and policies whose ModelDeployment is no more."""
        objects = self.access.objects
        for kind in _FOREIGN:
            if not objects.is_filled(kind) or not objects.is_filled(PARENT.kind):
                continue
            for owner in objects.owners(kind):
                if not self._is_served(owner) or await self._is_there(owner):
                    continue
                for live in objects.owned(kind, owner):
                    await self._remove(kind, live)

    def _is_served(self, owner: ObjectKey) -> bool:
        """Return whether it is ours to say that an owner is gone: another operator may serve other namespaces."""
        namespaces = self.access.settings.namespaces
        return not namespaces or owner.namespace in namespaces

    async def unused_runtimes(self) -> None:
        """Remove ServingRuntimes of ours that no InferenceService names, once they have had time to be named."""
        objects = self.access.objects
        if not objects.is_filled(SERVING_RUNTIME) or not objects.is_filled(INFERENCE_SERVICE):
            return
        inhabited = {key.namespace for key in objects.keys(PARENT.kind)}
        for key in objects.keys(SERVING_RUNTIME):
            live = objects.get(SERVING_RUNTIME, key)
            if live is None or not self._is_served(key) or (key.namespace in inhabited and self._is_young(live)):
                continue
            services = await self.access.api.list(INFERENCE_SERVICE, namespace=key.namespace)
            if not is_runtime_used(key.name, services):
                await self._remove(SERVING_RUNTIME, live)

    async def unused_storage(self) -> None:
        """Remove the ClusterStorageContainer after the last ModelDeployment of the cluster."""
        objects = self.access.objects
        if self.access.settings.namespaces or not objects.is_filled(PARENT.kind):
            return
        if any(True for kind in (PARENT.kind, INFERENCE_SERVICE) for _ in objects.keys(kind)):
            return
        for key in objects.keys(CLUSTER_STORAGE_CONTAINER):
            live = objects.get(CLUSTER_STORAGE_CONTAINER, key)
            if live is not None and not await self.access.api.list(PARENT.kind):
                await self._remove(CLUSTER_STORAGE_CONTAINER, live)

    async def unused_logs(self) -> None:
        """Remove the filters for gateways' logs where they are not wanted, or after the last ModelDeployment."""
        objects, settings = self.access.objects, self.access.settings
        if not objects.is_filled(ENVOY_FILTER) or not objects.is_filled(PARENT.kind):
            return
        is_last = not settings.namespaces and not any(True for _ in objects.keys(PARENT.kind))
        if settings.gateway_log and not is_last:
            return
        for key in objects.keys(ENVOY_FILTER):
            live = objects.get(ENVOY_FILTER, key)
            if live is not None and UNANSWERED_LABELS.items() <= live["metadata"].get("labels", {}).items():
                await self._remove(ENVOY_FILTER, live)

    def _is_young(self, live: Resource) -> bool:
        made_s = datetime.fromisoformat(live["metadata"]["creationTimestamp"]).timestamp()
        return self.access.clock.now_us() / 1e6 - made_s < _UNUSED_S

    async def _is_there(self, owner: ObjectKey) -> bool:
        """Return whether a ModelDeployment exists; the store may lag behind."""
        if self.access.objects.get(PARENT.kind, owner) is not None:
            return True
        try:
            await self.access.api.get(PARENT.kind, owner)
        except NotFound:
            return False
        return True

    async def _remove(self, kind: Kind, live: Resource) -> None:
        key = key_of(live)
        await self.access.api.delete(kind, key, uid=live["metadata"].get("uid"))
        _log.info("swept", extra={"kind": str(kind), "object": str(key)})
