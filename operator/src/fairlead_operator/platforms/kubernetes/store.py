"""Objects as the API last told us: trimmed, indexed by the ModelDeployment that they belong to.

Kept as JSON, without what the trim drops: a fraction of the memory of dicts, and nobody can change what others read.
A change of what was dropped is no change: nobody is told.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import orjson

from fairlead_operator.platforms.kubernetes.api import Resource
from fairlead_operator.platforms.kubernetes.kinds import (
    DEPLOYMENT_LABEL,
    DEPLOYMENT_NAMESPACE_LABEL,
    Kind,
    Watched,
    metadata,
)
from fairlead_operator.runtime.keys import ObjectKey

Changed: TypeAlias = Callable[[Kind, ObjectKey, ObjectKey | None], None]
"""Told of each change: the kind, the object, and the ModelDeployment on its labels, if there is one."""

Scopes: TypeAlias = Callable[[Kind], tuple[str | None, ...]]
"""Namespaces that a kind is listed in, each for itself; None stands for all."""


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


_GONE_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class _Kept:
    """One object."""

    content: bytes
    """Trimmed, as JSON, without its resourceVersion."""
    resource_version: str
    owner: ObjectKey | None


@dataclass(slots=True)
class _Shelf:
    """All objects of one kind."""

    watched: Watched
    objects: dict[ObjectKey, _Kept] = field(default_factory=dict)
    by_owner: dict[ObjectKey, set[ObjectKey]] = field(default_factory=dict)
    unlisted: set[str | None] = field(default_factory=set)
    """Namespaces that have not been listed yet; None stands for all."""
    missing: bool = False
    gone: dict[ObjectKey, str] = field(default_factory=dict)
    """The last version of objects that were deleted a short while ago."""

    @property
    def filled(self) -> bool:
        return not self.missing and not self.unlisted


class ObjectStore:
    """Filled by watches, read by reconciles; all on one event loop."""

    def __init__(self, watched: Iterable[Watched], changed: Changed, scopes: Scopes | None = None) -> None:
        """Make a store that knows nothing yet.

        Args:
            watched: What is kept.
            changed: Told of changes; it returns at once and never raises.
            scopes: Where each kind is listed; everywhere if left out.
        """
        self._scopes = scopes
        self._shelves = {one.kind: _Shelf(one, unlisted=set(self.scopes(one.kind))) for one in watched}
        self._changed = changed
        self._settled = asyncio.Event()

    @property
    def kinds(self) -> tuple[Watched, ...]:
        """What is kept."""
        return tuple(shelf.watched for shelf in self._shelves.values())

    def scopes(self, kind: Kind) -> tuple[str | None, ...]:
        """Return the namespaces that a kind is listed in; None stands for all."""
        return self._scopes(kind) if self._scopes and kind.namespaced else (None,)

    def get(self, kind: Kind, key: ObjectKey) -> Resource | None:
        """Return an object; None if the store has none."""
        kept = self._shelves[kind].objects.get(key)
        return None if kept is None else _unpacked(kind, kept)

    def owned(self, kind: Kind, owner: ObjectKey) -> tuple[Resource, ...]:
        """Return the objects of a kind that carry the labels of ModelDeployment ``owner``, by namespace and name."""
        shelf = self._shelves[kind]
        return tuple(_unpacked(kind, shelf.objects[key]) for key in sorted(shelf.by_owner.get(owner, ())))

    def keys(self, kind: Kind) -> Iterator[ObjectKey]:
        """Yield the keys of all objects of a kind."""
        return iter(tuple(self._shelves[kind].objects))

    def owners(self, kind: Kind) -> frozenset[ObjectKey]:
        """Return the ModelDeployments whose labels are on any object of a kind, be they there or not."""
        return frozenset(self._shelves[kind].by_owner)

    def is_filled(self, kind: Kind) -> bool:
        """Return whether the store has listed this kind, so that absence means absence."""
        return self._shelves[kind].filled

    def is_missing(self, kind: Kind) -> bool:
        """Return whether the API does not serve this kind."""
        return self._shelves[kind].missing

    def count(self, kind: Kind) -> int:
        """Return how many objects of a kind there are."""
        return len(self._shelves[kind].objects)

    def is_settled(self, kind: Kind) -> bool:
        """Return whether a kind is filled, or missing and allowed to be."""
        shelf = self._shelves[kind]
        return shelf.filled or (shelf.missing and shelf.watched.optional)

    @property
    def is_ready(self) -> bool:
        """Whether every kind has been settled once."""
        return self._settled.is_set()

    async def wait_until_ready(self) -> None:
        """Return once every kind has been settled."""
        await self._settled.wait()

    def _note_settled(self) -> None:
        if not self.is_ready and all(self.is_settled(kind) for kind in self._shelves):
            self._settled.set()

    def put(self, kind: Kind, resource: Mapping[str, Any]) -> ObjectKey:
        """Keep an object as it is now; return its key."""
        shelf = self._shelves[kind]
        key, kept = _packed(shelf.watched, resource)
        before = shelf.objects.get(key)
        # Answers to our writes and watches tell of one object side by side: the newest word counts.
        if not _is_older(kept.resource_version, before.resource_version if before else shelf.gone.get(key)):
            self._keep(shelf, key, kept)
        return key

    def remove(self, kind: Kind, key: ObjectKey) -> None:
        """Forget an object that has been deleted."""
        self._drop(self._shelves[kind], key)

    def retain(self, kind: Kind, keys: frozenset[ObjectKey], namespace: str | None = None) -> None:
        """Note that a kind has been listed whole: all objects but ``keys`` have gone, whether we were told or not.

        Args:
            kind: What was listed.
            keys: What is there.
            namespace: Where it was listed; None for everywhere.
        """
        shelf = self._shelves[kind]
        for key in shelf.objects.keys() - keys:
            if namespace is None or key.namespace == namespace:
                self._drop(shelf, key)
        shelf.unlisted.discard(namespace)
        shelf.missing = False
        self._note_settled()

    def mark_missing(self, kind: Kind) -> None:
        """Note that the API does not serve a kind; all its objects have gone with it."""
        shelf = self._shelves[kind]
        shelf.missing = True
        shelf.unlisted.update(self.scopes(kind))
        for key in tuple(shelf.objects):
            self._drop(shelf, key)
        self._note_settled()

    def _keep(self, shelf: _Shelf, key: ObjectKey, kept: _Kept) -> None:
        before = shelf.objects.get(key)
        shelf.objects[key] = kept
        if before is not None and before.content == kept.content:
            return
        if before is not None and before.owner != kept.owner:
            self._disown(shelf, key, before.owner)
            self._changed(shelf.watched.kind, key, before.owner)
        if kept.owner is not None:
            shelf.by_owner.setdefault(kept.owner, set()).add(key)
        self._changed(shelf.watched.kind, key, kept.owner)

    def _drop(self, shelf: _Shelf, key: ObjectKey) -> None:
        kept = shelf.objects.pop(key, None)
        if kept is not None:
            shelf.gone[key] = kept.resource_version
            while len(shelf.gone) > _GONE_REMEMBERED:
                shelf.gone.pop(next(iter(shelf.gone)))
            self._disown(shelf, key, kept.owner)
            self._changed(shelf.watched.kind, key, kept.owner)

    @staticmethod
    def _disown(shelf: _Shelf, key: ObjectKey, owner: ObjectKey | None) -> None:
        if owner is not None and (theirs := shelf.by_owner.get(owner)) is not None:
            theirs.discard(key)
            if not theirs:
                del shelf.by_owner[owner]


def _is_older(version: str, known: str | None) -> bool:
    """Return whether ``version`` says less than what is known; versions are decimal and grow."""
    return known is not None and version.isdecimal() and known.isdecimal() and int(version) < int(known)


def key_of(resource: Mapping[str, Any]) -> ObjectKey:
    """Return an object's key."""
    given = resource["metadata"]
    # Few namespaces, many objects, and every name several times: as owner, in indices and in the queue.
    return ObjectKey(sys.intern(given.get("namespace", "")), sys.intern(given["name"]))


def owner_of(resource: Mapping[str, Any]) -> ObjectKey | None:
    """Return the ModelDeployment on the labels of an object; None without both labels."""
    labels = resource["metadata"].get("labels") or {}
    name, namespace = labels.get(DEPLOYMENT_LABEL), labels.get(DEPLOYMENT_NAMESPACE_LABEL)
    return ObjectKey(sys.intern(namespace), sys.intern(name)) if name and namespace else None


def _packed(watched: Watched, resource: Mapping[str, Any]) -> tuple[ObjectKey, _Kept]:
    content = orjson.dumps({"metadata": metadata(resource), **watched.trim(resource)})
    version = resource["metadata"]["resourceVersion"]
    return key_of(resource), _Kept(content, version, owner_of(resource))


def _unpacked(kind: Kind, kept: _Kept) -> Resource:
    resource: Resource = {"apiVersion": kind.api_version, "kind": kind.kind, **orjson.loads(kept.content)}
    resource["metadata"]["resourceVersion"] = kept.resource_version
    return resource
