"""The ModelDeployments in the store: told by Kopf's watch, checked by a LIST at each resync.

Kopf tells nothing of objects that went while its watch was broken, nor when it has listed all. So the list is
ours, and where both speak of one object the newer version counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairlead_operator.platforms.kubernetes.api import KubeApi
from fairlead_operator.platforms.kubernetes.kinds import PARENT
from fairlead_operator.platforms.kubernetes.store import ObjectStore, key_of
from fairlead_operator.runtime.keys import ObjectKey


class Parents:
    """Keeps the store's ModelDeployments."""

    def __init__(self, api: KubeApi, store: ObjectStore) -> None:
        """Make it; nothing is listed yet.

        Args:
            api: Where the list comes from.
            store: Where objects are kept.
        """
        self._api = api
        self._store = store
        self._touched: set[ObjectKey] = set()
        """What a watch has told of since the present list began."""
        self.repaired = 0
        """Objects whose last change the watch had not told."""

    def heard(self, resource: Mapping[str, Any], *, deleted: bool) -> None:
        """Take in an event of the watch."""
        key = key_of(resource)
        self._touched.add(key)
        if deleted:
            self._store.remove(PARENT.kind, key)
        elif not self._is_old_news(key, resource):
            self._store.put(PARENT.kind, resource)

    async def relist(self) -> frozenset[ObjectKey]:
        """List all; return the keys of what is there and of what has gone since the last time."""
        known = frozenset(self._store.keys(PARENT.kind))
        was_filled = self._store.is_filled(PARENT.kind)
        self._touched.clear()
        listed: set[ObjectKey] = set()
        for namespace in self._store.scopes(PARENT.kind):
            listed |= self._take_in(await self._api.list(PARENT.kind, namespace=namespace))
        there = frozenset(listed | self._touched)
        if was_filled:
            self.repaired += len(known - there)
        for namespace in self._store.scopes(PARENT.kind):
            self._store.retain(PARENT.kind, there, namespace)
        return known | there

    def _take_in(self, resources: Sequence[Mapping[str, Any]]) -> set[ObjectKey]:
        keys = set()
        for resource in resources:
            key = key_of(resource)
            keys.add(key)
            # What the watch told meanwhile is newer than the list, a deletion too.
            if key not in self._touched and not self._is_old_news(key, resource):
                self._store.put(PARENT.kind, resource)
        return keys

    def _is_old_news(self, key: ObjectKey, resource: Mapping[str, Any]) -> bool:
        kept = self._store.get(PARENT.kind, key)
        if kept is None or kept["metadata"].get("uid") != resource["metadata"].get("uid"):
            return False
        before, after = kept["metadata"]["resourceVersion"], resource["metadata"]["resourceVersion"]
        # Versions of one resource are decimal and grow, on every server that calls itself conformant.
        return bool(before.isdecimal() and after.isdecimal() and int(after) < int(before))
