"""A cluster's objects without the server: what tests and the cluster's other controllers use directly.

What is done here is no request: it is in no log and meets no fault. Watches see it as they see everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import yaml

from fairlead.clock import Clock
from support.kube.builtin import builtin_kinds
from support.kube.collector import Collector
from support.kube.definitions import DEFINITION
from support.kube.errors import ApiError
from support.kube.intents import Deletion, Intent
from support.kube.kinds import Catalog, Kind
from support.kube.registry import NAMESPACE, Registry
from support.kube.store import Object, Place, Store


class Cluster:
    """Objects, the rules by which they change, and the two controllers that clean up."""

    def __init__(
        self,
        *,
        kinds: Iterable[Kind] = (),
        namespaces: Iterable[str] = (),
        clock: Clock,
        new_uid: Callable[[], str],
    ) -> None:
        """Serve the built-in kinds and ``kinds``; ``default`` and ``namespaces`` exist."""
        self.clock = clock
        self.catalog = Catalog((*builtin_kinds(), *kinds))
        self.store = Store()
        self.registry = Registry(self.catalog, self.store, clock, new_uid)
        self._collector = Collector(self.registry)
        for kind in self.catalog:
            self.store.journal(kind.resource)
        for name in dict.fromkeys(("default", *namespaces)):
            self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def register(self, *kinds: Kind) -> None:
        """Serve more kinds from now on."""
        for kind in kinds:
            self.catalog.add(kind)
            self.store.journal(kind.resource)

    def unregister(self, resource: str) -> None:
        """Serve ``resource`` (``inferenceservices.serving.kserve.io``) no longer; its watches end, its objects stay."""
        self.catalog.remove(resource)
        self.store.journal(resource).wake()

    def load(self, *manifests: Path) -> None:
        """Create what YAML files hold: CustomResourceDefinitions, or any objects of kinds that are served."""
        for manifest in manifests:
            for value in yaml.safe_load_all(manifest.read_text()):
                if value:
                    self.create(value)

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return a copy of an object, None if there is none; ``kind`` may be any name of it (``Catalog.named``)."""
        found = self.catalog.named(kind)
        stored = self.store.get(found.resource, (namespace if found.namespaced else "", name))
        return stored.value(found) if stored else None

    def objects(self, kind: str, namespace: str = "") -> list[Object]:
        """Return copies of all objects of a kind, by namespace and name."""
        found = self.catalog.named(kind)
        return [stored.value(found) for stored in self.store.list(found.resource, namespace)]

    def dependents(self, owner: Object, kind: str) -> list[Object]:
        """Return copies of the objects of a kind that name ``owner`` in their ownerReferences."""
        found = self.catalog.named(kind)
        owned = self.store.owned_by(owner["metadata"]["uid"])
        return [stored.value(found) for stored in owned if stored.resource == found.resource]

    def create(self, value: Object, *, manager: str = "test") -> Object:
        """Create an object, its status too; return it.

        Raises:
            ApiError: It is refused.
        """
        kind = self._kind_of(value)
        made = self.registry.create(kind, self._place(kind, value)[0], value, Intent(manager)).stored
        if kind.status and value.get("status") and kind.resource != DEFINITION:
            made = self.registry.merge_patch(
                kind, made.place, {"status": value["status"]}, Intent(manager, subresource="status")
            ).stored
        return made.value(kind)

    def apply(self, value: Object, *, manager: str = "test", subresource: str = "") -> Object:
        """Apply an object on the server's side, by force; return it."""
        kind = self._kind_of(value)
        intent = Intent(manager, subresource=subresource, force=True)
        return self.registry.apply(kind, self._place(kind, value), value, intent).stored.value(kind)

    def patch(
        self, kind: str, namespace: str, name: str, patch: Object, *, manager: str = "test", subresource: str = ""
    ) -> Object:
        """Merge ``patch`` into an object, or into its status; return it."""
        found = self.catalog.named(kind)
        intent = Intent(manager, subresource=subresource)
        place = (namespace if found.namespaced else "", name)
        stored = self.store.get(found.resource, place)
        if stored and _says(stored.value(found), patch):  # as most are that a cluster's controllers make
            return stored.value(found)
        return self.registry.merge_patch(found, place, patch, intent).stored.value(found)

    def set_status(self, kind: str, namespace: str, name: str, status: Object, *, manager: str = "test") -> Object:
        """Replace the status of an object; return the object."""
        found = self.catalog.named(kind)
        place = (namespace if found.namespaced else "", name)
        operations = [{"op": "add", "path": "/status", "value": status}]
        intent = Intent(manager, subresource="status")
        return self.registry.json_patch(found, place, operations, intent).stored.value(found)

    def delete(
        self, kind: str, namespace: str, name: str, *, policy: str = "Background", manager: str = "test"
    ) -> None:
        """Delete an object; one that is not there is no error."""
        found = self.catalog.named(kind)
        place = (namespace if found.namespaced else "", name)
        try:
            self.registry.delete(found, place, Deletion(policy=policy), Intent(manager))
        except ApiError as refused:
            if refused.code != 404:
                raise

    def add_namespace(self, name: str) -> None:
        """Make a namespace, if it is not there."""
        if self.get(NAMESPACE, "", name) is None:
            self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def settle(self) -> None:
        """Let the garbage collector and the namespace controller do all that there is to do, now."""
        self._collector.settle()

    def _kind_of(self, value: Object) -> Kind:
        return self.catalog.of(value["apiVersion"], value["kind"])

    def _place(self, kind: Kind, value: Object) -> Place:
        metadata = value["metadata"]
        return metadata.get("namespace", "default") if kind.namespaced else "", metadata.get("name", "")


def _says(value: Object, patch: Object) -> bool:
    """Return whether merging ``patch`` into ``value`` changes nothing."""
    for name, wanted in patch.items():
        if wanted is None:
            if name in value:
                return False
        elif isinstance(wanted, dict):
            if not isinstance(value.get(name), dict) or not _says(value[name], wanted):
                return False
        elif name not in value or value[name] != wanted:
            return False
    return True
