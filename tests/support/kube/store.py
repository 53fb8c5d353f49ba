"""Objects and their history, in memory: what etcd and the watch cache are to kube-apiserver.

An object is kept once, as JSON; every reader decodes its own copy. All changes share one counter, the revision,
which is the resourceVersion of what they leave behind.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from support.kube.errors import expired
from support.kube.kinds import Kind

Object = dict[str, Any]
Place = tuple[str, str]
"""Namespace ("" for cluster-scoped objects) and name."""

FIRST_REVISION = 100
REMEMBERED_CHANGES = 20_000


@dataclass(frozen=True, slots=True)
class Stored:
    """An object at one revision."""

    resource: str
    namespace: str
    name: str
    uid: str
    revision: int
    labels: Mapping[str, str]
    owners: tuple[str, ...]
    """The uids in its ownerReferences."""
    json: bytes
    """The object without apiVersion and kind, which depend on the version that is asked for."""

    @classmethod
    def of(cls, resource: str, value: Object, revision: int) -> Stored:
        """Return ``value`` as it is stored at ``revision``; the value is left as it was."""
        metadata = {**value["metadata"], **({"resourceVersion": str(revision)} if revision else {})}
        kept = {"metadata": metadata} | {
            name: part for name, part in value.items() if name not in {"apiVersion", "kind", "metadata"}
        }
        return cls(
            resource=resource,
            namespace=metadata.get("namespace", ""),
            name=metadata["name"],
            uid=metadata["uid"],
            revision=revision,
            labels=metadata.get("labels") or {},
            owners=tuple(owner["uid"] for owner in metadata.get("ownerReferences") or ()),
            json=orjson.dumps(kept),
        )

    @property
    def place(self) -> Place:
        """Where it is among its kind."""
        return self.namespace, self.name

    def value(self, kind: Kind) -> Object:
        """Return the object at the version of ``kind``: a copy that is the caller's own."""
        parsed: Object = orjson.loads(self.json)
        return {"apiVersion": kind.api_version, "kind": kind.kind} | parsed

    def document(self, kind: Kind) -> bytes:
        """Return the object's JSON at the version of ``kind``."""
        return b'{"apiVersion":"%b","kind":"%b",%b' % (kind.api_version.encode(), kind.kind.encode(), self.json[1:])

    def item(self, kind: Kind) -> bytes:
        """Return its JSON as an item of a list; built-in kinds leave apiVersion and kind out there."""
        return self.document(kind) if kind.custom else self.json


@dataclass(frozen=True, slots=True)
class Change:
    """One step in the life of an object."""

    type: str  # ADDED, MODIFIED, DELETED
    stored: Stored
    """What it left behind; for DELETED the last state, at the revision of the deletion."""
    previous: Stored | None

    @property
    def revision(self) -> int:
        """The revision that the change made."""
        return self.stored.revision


class Journal:
    """The changes of one resource, oldest first, back to ``floor``."""

    def __init__(self, floor: int) -> None:
        """Begin after revision ``floor``."""
        self.floor = floor
        self._changes: list[Change] = []
        self._grown = asyncio.Event()

    @property
    def newest(self) -> int:
        """The revision of the last change, or where the journal begins."""
        return self._changes[-1].revision if self._changes else self.floor

    def append(self, change: Change) -> None:
        """Remember ``change`` and wake whoever waits for it."""
        self._changes.append(change)
        if len(self._changes) > REMEMBERED_CHANGES:
            self.compact(self._changes[len(self._changes) // 2].revision)
        self.wake()

    def compact(self, revision: int) -> None:
        """Forget the changes up to ``revision``."""
        self.floor = max(self.floor, revision)
        del self._changes[: bisect_right(self._changes, revision, key=lambda change: change.revision)]

    def since(self, revision: int) -> list[Change]:
        """Return the changes after ``revision``.

        Raises:
            ApiError: 410, some of them are forgotten.
        """
        if revision < self.floor:
            raise expired(f"too old resource version: {revision} ({self.floor})")
        return self._changes[bisect_right(self._changes, revision, key=lambda change: change.revision) :]

    async def grown(self) -> None:
        """Wait for the next change (or for anybody who calls ``wake``)."""
        await self._grown.wait()

    def wake(self) -> None:
        """Let all who wait look again."""
        self._grown.set()
        self._grown = asyncio.Event()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All objects at one moment."""

    objects: dict[str, dict[Place, Stored]]
    owned: dict[str, set[tuple[str, Place]]]
    uids: dict[str, Stored]


class Store:
    """All objects of all resources."""

    def __init__(self) -> None:
        """Begin empty."""
        self.revision = FIRST_REVISION
        self._objects: defaultdict[str, dict[Place, Stored]] = defaultdict(dict)
        self._journals: dict[str, Journal] = {}
        self._owned: defaultdict[str, set[tuple[str, Place]]] = defaultdict(set)
        self._uids: dict[str, Stored] = {}
        self.everything = Journal(FIRST_REVISION)
        """The changes of all resources together."""

    def get(self, resource: str, place: Place) -> Stored | None:
        """Return an object, or None if there is none."""
        return self._objects[resource].get(place)

    def with_uid(self, uid: str) -> Stored | None:
        """Return the living object with this uid."""
        return self._uids.get(uid)

    def owned_by(self, uid: str) -> list[Stored]:
        """Return the living objects that name ``uid`` in their ownerReferences."""
        return [self._objects[resource][place] for resource, place in sorted(self._owned.get(uid, ()))]

    def list(self, resource: str, namespace: str = "", *, at: int | None = None) -> list[Stored]:
        """Return the objects of a resource by namespace and name, now or as they were at revision ``at``.

        Raises:
            ApiError: 410, that revision is no longer remembered.
        """
        objects = self._objects[resource] if at is None else self._past(resource, at)
        return [objects[place] for place in sorted(objects) if namespace in {"", place[0]}]

    def put(self, resource: str, value: Object) -> Stored:
        """Write an object as it is; nothing is checked here."""
        self.revision += 1
        stored = Stored.of(resource, value, self.revision)
        previous = self.get(resource, stored.place)
        if previous:
            self._forget(previous)
        self._objects[resource][stored.place] = stored
        self._uids[stored.uid] = stored
        for owner in stored.owners:
            self._owned[owner].add((resource, stored.place))
        self._tell(Change("MODIFIED" if previous else "ADDED", stored, previous))
        return stored

    def delete(self, kind: Kind, previous: Stored) -> Stored:
        """Take an object away; return its last state at the revision of the deletion."""
        self.revision += 1
        self._forget(previous)
        del self._objects[previous.resource][previous.place]
        last = Stored.of(previous.resource, previous.value(kind), self.revision)
        self._tell(Change("DELETED", last, previous))
        return last

    def journal(self, resource: str) -> Journal:
        """Return the history of a resource; it begins when it is first asked for or written."""
        if resource not in self._journals:
            self._journals[resource] = Journal(self.revision)
        return self._journals[resource]

    def compact(self) -> None:
        """Forget all history: watches and continued lists from before get 410."""
        self.revision += 1
        for journal in (*self._journals.values(), self.everything):
            journal.compact(self.revision)

    def snapshot(self) -> Snapshot:
        """Return all objects as they are now."""
        objects = {resource: dict(found) for resource, found in self._objects.items()}
        return Snapshot(objects, {uid: set(found) for uid, found in self._owned.items()}, dict(self._uids))

    def restore(self, snapshot: Snapshot) -> None:
        """Have all objects as they were; no journal tells of it, so nobody may be watching."""
        self.revision += 1
        self._objects.clear()
        self._objects.update({resource: dict(found) for resource, found in snapshot.objects.items()})
        self._owned.clear()
        self._owned.update({uid: set(found) for uid, found in snapshot.owned.items()})
        self._uids = dict(snapshot.uids)

    def _past(self, resource: str, revision: int) -> dict[Place, Stored]:
        objects = dict(self._objects[resource])
        for change in reversed(self.journal(resource).since(revision)):
            if change.previous:
                objects[change.stored.place] = change.previous
            else:
                del objects[change.stored.place]
        return objects

    def _forget(self, stored: Stored) -> None:
        self._uids.pop(stored.uid, None)
        for owner in stored.owners:
            self._owned[owner].discard((stored.resource, stored.place))

    def _tell(self, change: Change) -> None:
        self._journals.setdefault(change.stored.resource, Journal(change.revision - 1)).append(change)
        self.everything.append(change)
