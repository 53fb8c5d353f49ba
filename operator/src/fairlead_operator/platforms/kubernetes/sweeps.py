"""What no deployment's own reconcile would ever see: objects whose owner is gone, and runtimes that nobody uses."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fairlead_operator.assembly import Access
from fairlead_operator.platforms.kubernetes.kinds import (
    AUTHORIZATION_POLICY,
    ENVOY_FILTER,
    INFERENCE_SERVICE,
    PARENT,
    SERVING_RUNTIME,
)
from fairlead_operator.platforms.kubernetes.render.serving_runtime import is_runtime_used
from fairlead_operator.runtime.keys import ObjectKey

_log = logging.getLogger(__name__)

_FOREIGN = (ENVOY_FILTER, AUTHORIZATION_POLICY)
"""Kinds that stand in gateways' namespaces, where nothing can own them."""


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
                if objects.get(PARENT.kind, owner) is not None or not self._is_served(owner):
                    continue
                for live in objects.owned(kind, owner):
                    metadata = live["metadata"]
                    key = ObjectKey(metadata["namespace"], metadata["name"])
                    await self.access.api.delete(kind, key, uid=metadata.get("uid"))
                    _log.info("swept", extra={"kind": str(kind), "object": str(key)})

    def _is_served(self, owner: ObjectKey) -> bool:
        """Return whether it is ours to say that an owner is gone: another operator may serve other namespaces."""
        namespaces = self.access.settings.namespaces
        return not namespaces or owner.namespace in namespaces

    async def unused_runtimes(self) -> None:
        """Remove ServingRuntimes of ours that no InferenceService names and no ModelDeployment will."""
        objects = self.access.objects
        if not objects.is_filled(SERVING_RUNTIME) or not objects.is_filled(INFERENCE_SERVICE):
            return
        inhabited = {key.namespace for key in objects.keys(PARENT.kind)}
        for key in objects.keys(SERVING_RUNTIME):
            if key.namespace in inhabited or not self._is_served(key):
                continue
            services = await self.access.api.list(INFERENCE_SERVICE, namespace=key.namespace)
            live = objects.get(SERVING_RUNTIME, key)
            if live is not None and not is_runtime_used(key.name, services):
                await self.access.api.delete(SERVING_RUNTIME, key, uid=live["metadata"].get("uid"))
                _log.info("swept", extra={"kind": str(SERVING_RUNTIME), "object": str(key)})
