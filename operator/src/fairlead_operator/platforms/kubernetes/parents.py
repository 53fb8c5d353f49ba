"""The ModelDeployments in the store: told by Kopf's watch, checked by a LIST at each resync.

Kopf tells nothing of objects that went while its watch was broken, nor when it has listed all. So the list is
ours, and where both speak of one object the newer version counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fairlead_operator.platforms.kubernetes.api import KubeApi
from fairlead_operator.platforms.kubernetes.kinds import PARENT
from fairlead_operator.platforms.kubernetes.store import ObjectStore, key_of
from fairlead_operator.runtime.keys import ObjectKey


class Parents:
    """Keeps the store's ModelDeployments."""

    def __init__(self, api: KubeApi, store: ObjectStore, now: Callable[[], float]) -> None:
        """Make it; nothing is listed yet.

        Args:
            api: Where the list comes from.
            store: Where objects are kept.
            now: A clock that never goes back, seconds.
        """
        self._api = api
        self._store = store
        self._now = now
        self._awaited: dict[ObjectKey, tuple[str, float]] = {}
        """Versions that a list told and the watch has not, and since when."""
        self._touched: set[ObjectKey] = set()
        """What a watch has told of since the present list began."""
        self.repaired = 0
        """Objects whose last change the watch had not told."""

    def heard(self, resource: Mapping[str, Any], *, deleted: bool) -> None:
        """Take in an event of the watch."""
        key = key_of(resource)
        self._touched.add(key)
        awaited = self._awaited.get(key)
        if awaited is not None and (deleted or not _is_older(resource["metadata"]["resourceVersion"], awaited[0])):
            del self._awaited[key]
        if deleted:
            self._store.remove(PARENT.kind, key)
        elif not self._is_old_news(key, resource):
            self._store.put(PARENT.kind, resource)

    @property
    def deaf_for_s(self) -> float:
        """How long the watch has owed us a change that a list has told already; 0 if it owes none."""
        return self._now() - min((since for _, since in self._awaited.values()), default=self._now())

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
        self._awaited = {key: told for key, told in self._awaited.items() if key in there}
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
                self._await(key, resource["metadata"]["resourceVersion"])
                self._store.put(PARENT.kind, resource)
        return keys

    def _await(self, key: ObjectKey, version: str) -> None:
        """Have the watch owe us ``version``, unless it is the one that we know."""
        kept = self._store.get(PARENT.kind, key)
        if kept is None or kept["metadata"]["resourceVersion"] != version:
            _, since = self._awaited.get(key, ("", self._now()))
            self._awaited[key] = (version, since)

    def _is_old_news(self, key: ObjectKey, resource: Mapping[str, Any]) -> bool:
        kept = self._store.get(PARENT.kind, key)
        if kept is None or kept["metadata"].get("uid") != resource["metadata"].get("uid"):
            return False
        return _is_older(resource["metadata"]["resourceVersion"], kept["metadata"]["resourceVersion"])


def _is_older(version: str, known: str) -> bool:
    # Versions of one resource are decimal and grow, on every server that calls itself conformant.
    return version.isdecimal() and known.isdecimal() and int(version) < int(known)
