"""Writes of one deployment's objects: only where something differs, never over what belongs to somebody else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fairlead_operator.api.conditions import ConditionType, Reason
from fairlead_operator.core.observed import Problem
from fairlead_operator.errors import OperatorError
from fairlead_operator.platforms.kubernetes.api import KubeApi, Resource
from fairlead_operator.platforms.kubernetes.errors import NotFound
from fairlead_operator.platforms.kubernetes.kinds import (
    DEPLOYMENT_LABEL,
    DEPLOYMENT_NAMESPACE_LABEL,
    MANAGED_BY,
    Kind,
)
from fairlead_operator.platforms.kubernetes.render.covers import covers
from fairlead_operator.platforms.kubernetes.render.names import Place
from fairlead_operator.platforms.kubernetes.store import Objects
from fairlead_operator.runtime.keys import ObjectKey

_log = logging.getLogger(__name__)


class Obstacle(OperatorError):
    """Something in the cluster stands in the way; it is looked at again, and its problem is told as a condition."""

    retryable = True

    def __init__(self, problem: Problem) -> None:
        """Make the error of ``problem``."""
        super().__init__(problem.message)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes for one deployment."""

    api: KubeApi
    objects: Objects
    keep: Callable[[Kind, Mapping[str, Any]], object]
    """Has the store keep what a write has answered."""
    place: Place

    async def ensure(self, kind: Kind, manifest: Resource, *, fenced: bool = False, shared: bool = False) -> bool:
        """Make an object as ``manifest`` says; return whether that took a write.

        Args:
            kind: Its kind.
            manifest: Exactly the fields that we own.
            fenced: Whether the write holds only for the version that was looked at.
            shared: Whether the object is for several deployments, so that no one owns it.

        Raises:
            Obstacle: An object of this name belongs to somebody else.
            KubeError: The API refuses.
        """
        key = _key(manifest)
        live = self.objects.get(kind, key)
        if live is None:
            live = await self._unseen(kind, key)
        if live is not None:
            self._refuse_foreign(kind, live, shared=shared)
            if covers(live, manifest):
                return False
        version = live["metadata"]["resourceVersion"] if live is not None and fenced else None
        self.keep(kind, await self.api.apply(kind, manifest, resource_version=version))
        _log.info("applied", extra={"kind": str(kind), "object": str(key)})
        return True

    async def delete(self, kind: Kind, live: Mapping[str, Any]) -> None:
        """Delete an object that was looked at, if it is still that one."""
        key = _key(live)
        await self.api.delete(kind, key, uid=live["metadata"].get("uid"))
        _log.info("deleted", extra={"kind": str(kind), "object": str(key)})

    def is_ours(self, live: Mapping[str, Any]) -> bool:
        """Return whether an object is this deployment's own."""
        metadata = live["metadata"]
        labels = metadata.get("labels") or {}
        if not self.place.labels.items() <= labels.items():
            return False
        owners = {owner.get("uid") for owner in metadata.get("ownerReferences", [])}
        return self.place.uid in owners or metadata.get("namespace") != self.place.namespace

    async def _unseen(self, kind: Kind, key: ObjectKey) -> Resource | None:
        """Return an object that the store does not have: it lags, or the object has none of our labels."""
        try:
            return await self.api.get(kind, key)
        except NotFound:
            return None

    def _refuse_foreign(self, kind: Kind, live: Mapping[str, Any], *, shared: bool) -> None:
        labels = live["metadata"].get("labels") or {}
        if labels.get(MANAGED_BY) == "fairlead" and (shared or self.is_ours(live)):
            return
        key = _key(live)
        whose = f"{labels.get(DEPLOYMENT_NAMESPACE_LABEL)}/{labels.get(DEPLOYMENT_LABEL)}"
        belongs = f"ModelDeployment {whose}" if DEPLOYMENT_LABEL in labels else "somebody else"
        message = f"{kind} {key} is there and belongs to {belongs}; rename or delete it"
        condition = ConditionType.VARIANTS_READY if "kserve" in kind.group else ConditionType.ROUTING_READY
        raise Obstacle(Problem(condition, Reason.FOREIGN_OBJECT, message))


def _key(resource: Mapping[str, Any]) -> ObjectKey:
    metadata = resource["metadata"]
    return ObjectKey(metadata.get("namespace", ""), metadata["name"])
