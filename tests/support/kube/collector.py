"""The garbage collector and the namespace controller: what goes when something else has gone."""

from __future__ import annotations

from support.kube.intents import Deletion, Intent
from support.kube.kinds import Catalog, Kind
from support.kube.registry import FOREGROUND, NAMESPACE, ORPHAN, Registry
from support.kube.store import Object, Stored


class Collector:
    """Follows all changes; ``settle`` does what they call for."""

    def __init__(self, registry: Registry) -> None:
        """Collect the garbage of ``registry``."""
        self._registry = registry
        self._store = registry.store
        self._seen = registry.store.revision
        self._intent = Intent(manager="kube-controller-manager")

    def settle(self) -> None:
        """Work until nothing is left to do."""
        while changes := self._store.everything.since(max(self._seen, self._store.everything.floor)):
            self._seen = changes[-1].revision
            for change in changes:
                if change.type == "DELETED":
                    for dependent in self._store.owned_by(change.stored.uid):
                        self._consider(dependent)
                    self._owners_of(change.stored)
                    self._empty_namespace(change.stored.namespace)
                else:
                    self._look_at(change.stored)

    def _look_at(self, stored: Stored) -> None:
        current = self._store.get(stored.resource, stored.place)
        if current is None:
            return
        self._consider(current)
        if current.resource == NAMESPACE:
            self._empty_namespace(current.name)
        self._finish_deletion(current)

    def _consider(self, stored: Stored) -> None:
        """Delete an object whose owners are all gone; take the gone ones off one that still has others."""
        kind = self._kind(stored.resource)
        current = self._store.get(stored.resource, stored.place)
        if kind is None or current is None or not current.owners:
            return
        living = [uid for uid in current.owners if self._lives(uid, current.namespace)]
        if not living:
            self._delete(kind, current)
        elif len(living) < len(current.owners):
            value = current.value(kind)
            references = [one for one in value["metadata"]["ownerReferences"] if one["uid"] in living]
            patch = {"metadata": {"ownerReferences": references}}
            self._registry.merge_patch(kind, current.place, patch, self._intent)

    def _lives(self, uid: str, namespace: str) -> bool:
        owner = self._store.with_uid(uid)
        return owner is not None and owner.namespace in {"", namespace}

    def _owners_of(self, stored: Stored) -> None:
        for uid in stored.owners:
            owner = self._store.with_uid(uid)
            if owner:
                self._finish_deletion(owner)

    def _finish_deletion(self, stored: Stored) -> None:
        """Let go of an owner that waits for its dependents (Foreground), or wants them spared (Orphan)."""
        kind = self._kind(stored.resource)
        current = self._store.get(stored.resource, stored.place)
        if kind is None or current is None:
            return
        meta = current.value(kind)["metadata"]
        if "deletionTimestamp" not in meta:
            return
        if FOREGROUND in meta.get("finalizers", ()):
            self._delete_dependents(current)
            if not any(self._blocks(dependent, current) for dependent in self._store.owned_by(current.uid)):
                self._release(kind, current, FOREGROUND)
        elif ORPHAN in meta.get("finalizers", ()):
            self._spare_dependents(current)
            self._release(kind, current, ORPHAN)

    def _delete_dependents(self, owner: Stored) -> None:
        for dependent in self._store.owned_by(owner.uid):
            kind = self._kind(dependent.resource)
            others = [uid for uid in dependent.owners if uid != owner.uid and self._lives(uid, dependent.namespace)]
            if kind and not others:
                self._delete(kind, dependent, "Foreground" if self._store.owned_by(dependent.uid) else "Background")

    def _spare_dependents(self, owner: Stored) -> None:
        for dependent in self._store.owned_by(owner.uid):
            kind = self._kind(dependent.resource)
            if kind:
                references = _references(dependent, kind)
                patch = {"metadata": {"ownerReferences": [one for one in references if one["uid"] != owner.uid]}}
                self._registry.merge_patch(kind, dependent.place, patch, self._intent)

    def _blocks(self, dependent: Stored, owner: Stored) -> bool:
        kind = self._kind(dependent.resource)
        return kind is not None and any(
            one["uid"] == owner.uid and one.get("blockOwnerDeletion") for one in _references(dependent, kind)
        )

    def _release(self, kind: Kind, stored: Stored, finalizer: str) -> None:
        current = self._registry.get(kind, stored.place)
        held_by = current.value(kind)["metadata"]["finalizers"]
        patch = {"metadata": {"finalizers": [one for one in held_by if one != finalizer]}}
        self._registry.merge_patch(kind, current.place, patch, self._intent)

    def _empty_namespace(self, name: str) -> None:
        space = self._store.get(NAMESPACE, ("", name))
        if space is None:
            return
        spaces = self._registry.catalog.named(NAMESPACE)
        meta = space.value(spaces)["metadata"]
        if "deletionTimestamp" not in meta:
            return
        left = False
        for kind in _storage_kinds(self._registry.catalog):
            for stored in self._store.list(kind.resource, name) if kind.namespaced else ():
                self._delete(kind, stored)
                left = left or self._store.get(kind.resource, stored.place) is not None
        if not left and not meta.get("finalizers"):
            self._registry.finish(spaces, space)

    def _delete(self, kind: Kind, stored: Stored, policy: str = "Background") -> None:
        if self._store.get(stored.resource, stored.place):
            self._registry.delete(kind, stored.place, Deletion(policy=policy), self._intent)

    def _kind(self, resource: str) -> Kind | None:
        return next((kind for kind in self._registry.catalog if kind.resource == resource), None)


def _references(stored: Stored, kind: Kind) -> list[Object]:
    references: list[Object] = stored.value(kind)["metadata"].get("ownerReferences", [])
    return references


def _storage_kinds(catalog: Catalog) -> list[Kind]:
    return [*{kind.resource: kind for kind in catalog if not kind.ephemeral}.values()]
