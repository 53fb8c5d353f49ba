"""A ModelDeployment in a cluster as commands see it: what it asks for, what is remembered, its annotations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fairlead_operator.api.objects import from_object
from fairlead_operator.api.v1alpha1 import PAUSED_ANNOTATION
from fairlead_operator.core.desired import Desired, desired_from
from fairlead_operator.core.record import Record, loaded
from fairlead_operator.platforms.kubernetes.api import KubeApi, Resource
from fairlead_operator.platforms.kubernetes.client import KubeClient
from fairlead_operator.platforms.kubernetes.connection import connect
from fairlead_operator.platforms.kubernetes.errors import NotFound
from fairlead_operator.platforms.kubernetes.kinds import CONFIG_MAP, MODEL_DEPLOYMENT
from fairlead_operator.platforms.kubernetes.render.inference_service import pod_identity
from fairlead_operator.runtime.keys import ObjectKey

_T = TypeVar("_T")

_RECORD_FILE = "rollout.json"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Which cluster, and where in it."""

    namespace: str
    context: str | None
    kubeconfig: Path | None


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployment in a cluster."""

    cluster: Cluster
    desired: Desired
    rollout: Record
    is_paused: bool
    """Whether a command has paused it."""
    manifest_pauses: bool
    """Whether it is paused by its spec."""
    is_up: bool = True
    """Whether anything takes decisions up: in a cluster the operator does, sooner or later."""

    def annotate(self, changes: Mapping[str, str | None]) -> None:
        """Change annotations of the deployment; None removes one.

        Raises:
            KubeError: The API refuses, or cannot be reached.
        """
        key = ObjectKey(self.cluster.namespace, self.desired.name)
        asyncio.run(_with_api(self.cluster, lambda api: _annotate(api, key, changes)))


def deployed(cluster: Cluster, name: str) -> Deployed | None:
    """Return deployment ``name``; None if it is not there.

    Raises:
        KubeError: The API refuses, or cannot be reached.
        ManifestError: Its spec is not one of this version.
    """
    return asyncio.run(_with_api(cluster, lambda api: _read(api, cluster, name)))


async def _read(api: KubeApi, cluster: Cluster, name: str) -> Deployed | None:
    try:
        resource = await api.get(MODEL_DEPLOYMENT, ObjectKey(cluster.namespace, name))
    except NotFound:
        return None
    deployment = from_object(resource)
    record = await _record(api, ObjectKey(cluster.namespace, f"{name}-rollout"))
    return Deployed(
        cluster=cluster,
        desired=desired_from(deployment, record.release, pod_identity),
        rollout=record,
        is_paused=deployment.metadata.annotations.get(PAUSED_ANNOTATION) == "true",
        manifest_pauses=deployment.spec.paused,
    )


async def _record(api: KubeApi, key: ObjectKey) -> Record:
    try:
        kept: Resource = await api.get(CONFIG_MAP, key)
    except NotFound:
        kept = {}
    return loaded(kept.get("data", {}).get(_RECORD_FILE, "")) or Record("")


async def _annotate(api: KubeApi, key: ObjectKey, changes: Mapping[str, str | None]) -> None:
    resource = await api.get(MODEL_DEPLOYMENT, key)
    metadata = resource["metadata"]
    merged = {**(metadata.get("annotations") or {}), **changes}
    kept = {name: text for name, text in merged.items() if text is not None}
    await api.patch_metadata(MODEL_DEPLOYMENT, key, {"annotations": kept}, resource_version=metadata["resourceVersion"])


async def _with_api(cluster: Cluster, work: Callable[[KubeApi], Awaitable[_T]]) -> _T:
    async with _client(cluster) as api:
        return await work(api)


@asynccontextmanager
async def _client(cluster: Cluster) -> AsyncIterator[KubeClient]:
    client = KubeClient(
        await connect(kubeconfig=cluster.kubeconfig, context=cluster.context), user_agent="fairlead-cli"
    )
    try:
        yield client
    finally:
        await client.close()
