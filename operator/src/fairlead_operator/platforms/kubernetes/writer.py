"""Writes of one deployment's objects: only where something differs, never over what belongs to somebody else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fairlead_operator.api.conditions import ConditionType, Reason
from fairlead_operator.core.observed import Problem
from fairlead_operator.errors import OperatorError
from fairlead_operator.platforms.kubernetes.api import FIELD_MANAGER, KubeApi, Resource
from fairlead_operator.platforms.kubernetes.errors import NotFound
from fairlead_operator.platforms.kubernetes.kinds import (
    DEPLOYMENT_LABEL,
    DEPLOYMENT_NAMESPACE_LABEL,
    MANAGED_BY,
    OURS,
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
        live = await self.live(kind, key, shared=shared)
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
        """Return whether an object is this deployment's own.

        It is by its owner; where nobody owns it, by all our labels, or because we have applied it, which only the
        API's own copy tells.
        """
        metadata = live["metadata"]
        owners = metadata.get("ownerReferences") or []
        if any(owner.get("controller") for owner in owners):
            return any(owner.get("uid") == self.place.uid for owner in owners)
        labels = metadata.get("labels") or {}
        return self.place.labels.items() <= labels.items() or _was_applied_by_us(live)

    async def live(self, kind: Kind, key: ObjectKey, *, shared: bool = False) -> Resource | None:
        """Return an object, from the API if the store has none or one that seems not to be ours.

        The store has no objects that somebody took our label off, and does not keep who applied what.

        Raises:
            KubeError: The API refuses, or does not answer.
        """
        known = self.objects.get(kind, key)
        if known is not None and (shared or self.is_ours(known)):
            return known
        try:
            return await self.api.get(kind, key)
        except NotFound:
            return None

    def _refuse_foreign(self, kind: Kind, live: Mapping[str, Any], *, shared: bool) -> None:
        labels = live["metadata"].get("labels") or {}
        is_known = labels.get(MANAGED_BY) == OURS[MANAGED_BY] or _was_applied_by_us(live)
        if is_known if shared else self.is_ours(live):
            return
        key = _key(live)
        whose = f"{labels.get(DEPLOYMENT_NAMESPACE_LABEL)}/{labels.get(DEPLOYMENT_LABEL)}"
        belongs = f"ModelDeployment {whose}" if DEPLOYMENT_LABEL in labels else "somebody else"
        message = f"{kind} {key} is there and belongs to {belongs}; rename or delete it"
        condition = ConditionType.VARIANTS_READY if "kserve" in kind.group else ConditionType.ROUTING_READY
        raise Obstacle(Problem(condition, Reason.FOREIGN_OBJECT, message))


def _was_applied_by_us(live: Mapping[str, Any]) -> bool:
    """Return whether we have written an object; the store's copies do not say."""
    entries = live["metadata"].get("managedFields") or []
    return any((one.get("manager"), one.get("operation")) == (FIELD_MANAGER, "Apply") for one in entries)


def _key(resource: Mapping[str, Any]) -> ObjectKey:
    metadata = resource["metadata"]
    return ObjectKey(metadata.get("namespace", ""), metadata["name"])
