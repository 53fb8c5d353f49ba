"""A ModelDeployment in a cluster as commands see it: what it asks for, what is remembered, its annotations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from fairlead_operator.api.objects import from_object
from fairlead_operator.api.v1alpha1 import PAUSED_ANNOTATION, ModelDeployment
from fairlead_operator.core.desired import Desired, desired_from
from fairlead_operator.core.record import Record, loaded
from fairlead_operator.platforms.kubernetes.api import Resource
from fairlead_operator.platforms.kubernetes.client import KubeClient
from fairlead_operator.platforms.kubernetes.contexts import Cluster, opened
from fairlead_operator.platforms.kubernetes.errors import KubeError, NotFound, Stale
from fairlead_operator.platforms.kubernetes.kinds import CONFIG_MAP, MODEL_DEPLOYMENT, NAMESPACE
from fairlead_operator.platforms.kubernetes.render.inference_service import pod_identity
from fairlead_operator.runtime.keys import ObjectKey

_T = TypeVar("_T")

_RECORD_FILE = "rollout.json"
_TRIES = 4
"""How often a write is tried while the operator goes on reporting."""


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace of a cluster, while we are connected to it."""

    cluster: Cluster
    api: KubeClient
    namespace: str

    async def find(self, name: str) -> Resource:
        """Return ModelDeployment ``name``.

        Raises:
            NotFound: It is not there, or its namespace is not.
        """
        try:
            return await self.api.get(MODEL_DEPLOYMENT, ObjectKey(self.namespace, name))
        except NotFound as error:
            await self.require_namespace()
            what = f"{self.namespace}/{name}"
            message = f"no ModelDeployment {what} in this cluster; `kubectl get mdep -A` lists them"
            raise NotFound(message, code=error.code, reason=error.reason) from error

    async def require_namespace(self) -> None:
        """Check that the namespace is there, if we may know.

        Raises:
            NotFound: It is not.
        """
        try:
            await self.api.get(NAMESPACE, ObjectKey("", self.namespace))
        except NotFound as error:
            message = f"no namespace {self.namespace} in this cluster; `kubectl get namespaces` lists them"
            raise NotFound(message, code=error.code, reason=error.reason) from error
        except KubeError:  # many users may not look at namespaces; then the rest is true all the same
            return

    async def record(self, name: str) -> Record | None:
        """Return what is remembered of deployment ``name``; None if nothing is."""
        try:
            kept: Resource = await self.api.get(CONFIG_MAP, ObjectKey(self.namespace, record_name(name)))
        except NotFound:
            return None
        return loaded(kept.get("data", {}).get(_RECORD_FILE, ""))


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployment in a cluster."""

    cluster: Cluster
    resource: Resource
    """As the API gave it."""
    deployment: ModelDeployment
    desired: Desired
    rollout: Record
    is_paused: bool
    """Whether a command has paused it."""
    manifest_pauses: bool
    """Whether it is paused by its spec."""
    is_up: bool = field(default=True)
    """Whether anything takes decisions up: in a cluster the operator does, sooner or later."""

    @property
    def key(self) -> ObjectKey:
        """Which object it is."""
        return ObjectKey(self.desired.namespace, self.desired.name)

    @property
    def release(self) -> str:
        """The server release in force; empty while nobody has chosen one."""
        return self.deployment.spec.serving.release or self.rollout.release

    def annotate(self, changes: Mapping[str, str | None]) -> None:
        """Change annotations of the deployment; None removes one.

        Raises:
            Stale: Its spec has changed since it was read.
            KubeError: The API refuses, or cannot be reached.
        """

        async def annotate(place: Place, live: Resource) -> None:
            given = live["metadata"].get("annotations") or {}
            kept = {name: text for name, text in {**given, **changes}.items() if text is not None}
            version = live["metadata"]["resourceVersion"]
            await place.api.patch_metadata(MODEL_DEPLOYMENT, self.key, {"annotations": kept}, resource_version=version)

        asked(self.cluster, lambda place: self._written(place, annotate))

    def move_to(self, release: str, *, dry_run: bool = False) -> None:
        """Name the server release that is to serve it.

        Args:
            release: The release.
            dry_run: Only have the API say whether it would take it.

        Raises:
            Stale: Its spec has changed since it was read.
            Invalid: An experiment has frozen the release.
            KubeError: The API refuses otherwise, or cannot be reached.
        """

        async def move(place: Place, live: Resource) -> None:
            changes = {"spec": {"serving": {"release": release}}}
            version = live["metadata"]["resourceVersion"]
            await place.api.merge(MODEL_DEPLOYMENT, self.key, changes, resource_version=version, dry_run=dry_run)

        asked(self.cluster, lambda place: self._written(place, move))

    async def _written(self, place: Place, write: Callable[[Place, Resource], Awaitable[None]]) -> None:
        """Write from the deployment as it was read; once more from a later one that differs in its status alone."""
        live = self.resource
        for tries_left in reversed(range(_TRIES)):
            try:
                return await write(place, live)
            except Stale:
                live = await place.find(self.key.name)
                if not tries_left or _spec_of(live) != _spec_of(self.resource):
                    raise
        return None


def deployed(cluster: Cluster, name: str) -> Deployed:
    """Return deployment ``name``.

    Raises:
        NotFound: It is not there.
        KubeError: The API refuses, or cannot be reached.
        ManifestError: Its spec is not one of this version.
    """

    async def read(place: Place) -> Deployed:
        resource = await place.find(name)
        return deployed_from(cluster, resource, await place.record(name))

    return asked(cluster, read)


def deployed_from(cluster: Cluster, resource: Resource, record: Record | None) -> Deployed:
    """Return what a ModelDeployment and the record of its rollout say.

    Raises:
        ManifestError: Its spec is not one of this version.
    """
    deployment = from_object(resource)
    told = deployment.status.serving_release if deployment.status else ""
    rollout = record or Record(told)
    return Deployed(
        cluster=cluster,
        resource=resource,
        deployment=deployment,
        desired=desired_from(deployment, rollout.release, pod_identity),
        rollout=rollout,
        is_paused=deployment.metadata.annotations.get(PAUSED_ANNOTATION) == "true",
        manifest_pauses=deployment.spec.paused,
    )


def _spec_of(resource: Resource) -> tuple[str, int]:
    """Return what is another one after each change of the spec."""
    metadata = resource["metadata"]
    return metadata["uid"], metadata["generation"]


def record_name(name: str) -> str:
    """Return the name of the ConfigMap that remembers the rollout of deployment ``name``."""
    return f"{name}-rollout"


def asked(cluster: Cluster, work: Callable[[Place], Awaitable[_T]]) -> _T:
    """Return what ``work`` makes of the cluster.

    Raises:
        KubeError: The API refuses, or cannot be reached; the message says what to do.
        ContextUnknown: The kubeconfig has no such context.
    """

    async def ask() -> _T:
        async with placed(cluster) as place:
            return await work(place)

    return asyncio.run(ask())


@asynccontextmanager
async def placed(cluster: Cluster) -> AsyncIterator[Place]:
    """Yield the cluster's namespace, connected to.

    Raises:
        KubeError: The API refuses, or cannot be reached; the message says what to do.
        ContextUnknown: The kubeconfig has no such context.
    """
    async with opened(cluster) as (api, namespace):
        yield Place(cluster, api, namespace)
