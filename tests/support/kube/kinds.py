"""Kinds that a server can serve, and the catalog of those that it does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]
"""A structural schema: OpenAPI v3 with the ``x-kubernetes-*`` words. ``{}`` allows and keeps anything."""

READ = ("get", "list", "watch")
WRITE = ("create", "delete", "deletecollection", "patch", "update")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind at one version."""

    group: str  # "" is the core group
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    """Has the status subresource: the object's path ignores status, the status path all else."""
    generation: bool = False
    """Counts changes of anything but metadata and status."""
    custom: bool = False
    """Comes of a CustomResourceDefinition; built-in kinds differ in a few manners."""
    ephemeral: bool = False
    """Can be created only, and is answered rather than stored (access reviews)."""
    answers_deleted: bool = False
    """DELETE answers with the object, not with a Status."""
    ruled: bool = False
    """Its schema has rules in CEL."""
    schema: Schema = field(default_factory=dict, hash=False, compare=False)

    @property
    def api_version(self) -> str:
        """The ``apiVersion`` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """Its plural, qualified by the group, whatever the version: ``deployments.apps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular(self) -> str:
        """Its name for one."""
        return self.kind.lower()

    @property
    def verbs(self) -> tuple[str, ...]:
        """What can be done with it."""
        return ("create",) if self.ephemeral else (*WRITE, *READ)


class Catalog:
    """The kinds that are served now; custom kinds come and go."""

    def __init__(self, kinds: Iterable[Kind] = ()) -> None:
        """Serve ``kinds`` from the start."""
        self._kinds: dict[tuple[str, str, str], Kind] = {}
        for kind in kinds:
            self.add(kind)

    def __iter__(self) -> Iterator[Kind]:
        """Yield all kinds in the order they came."""
        return iter(self._kinds.values())

    def add(self, kind: Kind) -> None:
        """Serve ``kind``, in place of its earlier self if there is one."""
        self._kinds[kind.group, kind.version, kind.plural] = kind

    def remove(self, resource: str) -> None:
        """Serve no version of ``resource`` (``deployments.apps``) any longer."""
        self._kinds = {place: kind for place, kind in self._kinds.items() if kind.resource != resource}

    def at(self, group: str, version: str, plural: str) -> Kind | None:
        """Return the kind that a path names."""
        return self._kinds.get((group, version, plural))

    def named(self, name: str) -> Kind:
        """Return a kind by ``Kind``, ``kind.group``, plural, qualified plural or short name, the first that fits.

        Raises:
            LookupError: No kind is served under that name.
        """
        for kind in self:
            names = (kind.kind, f"{kind.kind}.{kind.group}", kind.plural, kind.resource, *kind.short_names)
            if name in names:
                return kind
        raise LookupError(f"no kind {name!r} is served")

    def of(self, api_version: str, kind: str) -> Kind:
        """Return the kind of an object by its ``apiVersion`` and ``kind``.

        Raises:
            LookupError: It is not served.
        """
        for served in self:
            if (served.api_version, served.kind) == (api_version, kind):
                return served
        raise LookupError(f"no kind {kind} of {api_version} is served")
