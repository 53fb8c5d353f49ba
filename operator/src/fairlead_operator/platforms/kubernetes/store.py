"""What a watch-fed store answers; its filling is further down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from fairlead_operator.platforms.kubernetes.api import Resource
from fairlead_operator.platforms.kubernetes.kinds import Kind
from fairlead_operator.runtime.keys import ObjectKey


class Objects(Protocol):
    """Read access to the objects that the store keeps: trimmed to what ``kinds.py`` names, a moment old at most.

    Every answer is a fresh dict that the caller may change. It may be stale: a write that depends on it must carry its
    resourceVersion.
    """

    def get(self, kind: Kind, key: ObjectKey) -> Resource | None:
        """Return an object; None if the store has none."""

    def owned(self, kind: Kind, owner: ObjectKey) -> tuple[Resource, ...]:
        """Return the objects of a kind that carry the labels of ModelDeployment ``owner``, by namespace and name."""

    def keys(self, kind: Kind) -> Iterator[ObjectKey]:
        """Yield the keys of all objects of a kind."""

    def owners(self, kind: Kind) -> frozenset[ObjectKey]:
        """Return the ModelDeployments whose labels are on any object of a kind, be they there or not."""

    def is_filled(self, kind: Kind) -> bool:
        """Return whether the store has listed this kind, so that absence means absence."""

    def is_missing(self, kind: Kind) -> bool:
        """Return whether the API does not serve this kind."""
