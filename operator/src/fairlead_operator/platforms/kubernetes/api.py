"""What we ask of the Kubernetes API, on plain dicts. Nothing else in the package knows a client library.

Every call has a deadline. Reads and server-side applies are tried again within it; all calls are counted by verb, kind
and code.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from fairlead_operator.platforms.kubernetes.kinds import Kind
from fairlead_operator.runtime.keys import ObjectKey

Resource: TypeAlias = dict[str, Any]
"""An object as the API gives and takes it."""

FIELD_MANAGER = "fairlead"


class Propagation(StrEnum):
    """What becomes of the dependents of a deleted object."""

    BACKGROUND = "Background"
    FOREGROUND = "Foreground"
    ORPHAN = "Orphan"


class Change(StrEnum):
    """What a watch tells."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    """Nothing but a newer resourceVersion to resume from."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list."""

    items: Sequence[Resource]
    resource_version: str
    """Of the list as a whole: what a watch starts from."""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One line of a watch."""

    change: Change
    object: Resource


class KubeApi(Protocol):
    """The verbs. Each raises KubeError's subclasses; writes raise LeaseLost once the fence is down.

    A namespace of None means all namespaces. A key's namespace is empty for cluster-wide kinds.
    """

    async def get(self, kind: Kind, key: ObjectKey) -> Resource:
        """Return an object.

        Raises:
            NotFound: It is not there.
            KindMissing: The kind is not served.
        """

    def pages(
        self, kind: Kind, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[Page]:
        """Yield the pages of a list; all carry the same resourceVersion.

        Args:
            kind: What to list.
            namespace: Where; None for everywhere.
            labels: Labels that an object must have.

        Raises:
            Expired: The list took too long; start anew.
        """

    async def list(
        self, kind: Kind, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Resource]:
        """Return a whole list, page by page; started anew once if it expires on the way."""

    async def apply(
        self,
        kind: Kind,
        resource: Resource,
        *,
        resource_version: str | None = None,
        force: bool = True,
        dry_run: bool = False,
    ) -> Resource:
        """Server-side apply ``resource`` (with apiVersion, kind, name and namespace) as field manager ``fairlead``.

        Args:
            kind: Its kind.
            resource: Exactly the fields that we own.
            resource_version: The version that this write was planned from; None to apply whatever is there.
            force: Take over fields that others own.
            dry_run: Only have it checked.

        Returns:
            The object as it is afterwards.

        Raises:
            Stale: The object is not at ``resource_version``.
            OwnedByOther: Another manager owns a field and ``force`` is false.
            Invalid: It is refused.
        """

    async def create(self, kind: Kind, resource: Resource) -> Resource:
        """Create an object; never tried again by itself, since nobody could tell whose it is.

        Raises:
            AlreadyExists: An object of this name is there.
        """

    async def replace(self, kind: Kind, resource: Resource) -> Resource:
        """Replace a whole object, if it is still at the resourceVersion that ``resource`` carries.

        Raises:
            Stale: It is not.
        """

    async def delete(
        self,
        kind: Kind,
        key: ObjectKey,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: Propagation = Propagation.BACKGROUND,
    ) -> bool:
        """Delete an object; return whether there was one.

        Raises:
            Stale: Its uid or resourceVersion is another.
        """

    async def patch_status(
        self, kind: Kind, key: ObjectKey, status: Mapping[str, Any], *, resource_version: str
    ) -> Resource:
        """Replace the whole status (status subresource), if the object is at ``resource_version``.

        Raises:
            Stale: It is not.
        """

    async def patch_metadata(
        self, kind: Kind, key: ObjectKey, metadata: Mapping[str, Any], *, resource_version: str
    ) -> Resource:
        """Replace parts of the metadata (``{"finalizers": [...]}``), if the object is at ``resource_version``.

        Raises:
            Stale: It is not.
        """

    def watch(
        self,
        kind: Kind,
        *,
        resource_version: str,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        timeout_s: float = 300.0,
        silence_s: float = 90.0,
    ) -> AsyncIterator[WatchEvent]:
        """Yield what happens after ``resource_version``, bookmarks included; ends when the server ends it.

        Args:
            kind: What to watch.
            resource_version: Where to go on.
            namespace: Where; None for everywhere.
            labels: Labels that an object must have.
            timeout_s: When the server is to end the watch.
            silence_s: How long nothing at all may come, before the connection is taken for dead.

        Raises:
            Expired: ``resource_version`` is too old; list anew.
            Unavailable: The connection broke, or was silent for too long.
        """

    def log(
        self,
        pod: ObjectKey,
        container: str,
        *,
        since_s: int | None = None,
        follow: bool = False,
        previous: bool = False,
        silence_s: float = 90.0,
    ) -> AsyncIterator[bytes]:
        """Yield the whole lines of a container's log, each with the time in front at which it was written.

        Args:
            pod: Whose.
            container: Which of the pod's.
            since_s: Unix time of the first line; None for all that is kept.
            follow: Whether to wait for more when all is read, until the container ends.
            previous: Whether to read of the container's last life.
            silence_s: How long nothing at all may come, before the connection is taken for dead.

        Raises:
            NotFound: The pod is not there.
            Invalid: The container has not begun, or no such life is kept.
            Unavailable: The connection broke, or was silent for too long.
        """

    async def serves(self, kind: Kind) -> bool:
        """Return whether the API serves this kind now (its CRD is installed)."""
