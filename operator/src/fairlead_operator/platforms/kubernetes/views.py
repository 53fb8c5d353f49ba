"""ModelDeployments in a cluster as people look at them, once or for as long as they watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing

from fairlead_operator.console import View, targets_of
from fairlead_operator.errors import ManifestError
from fairlead_operator.platforms.kubernetes.api import Change, Resource
from fairlead_operator.platforms.kubernetes.deployed import Place, deployed_from, record_name
from fairlead_operator.platforms.kubernetes.errors import Expired, Forbidden, NotFound, Unavailable
from fairlead_operator.platforms.kubernetes.kinds import MODEL_DEPLOYMENT

_PAUSE_S = 1.0
"""Between the end of a watch and the next."""


async def viewed(place: Place, name: str) -> View:
    """Return deployment ``name``.

    Raises:
        NotFound: It is not there.
        KubeError: The API refuses, or cannot be reached.
    """
    return await _view(place, await place.find(name))


async def listed(place: Place, *, everywhere: bool = False) -> Sequence[View]:
    """Return the deployments of the namespace, or of all, by name.

    Raises:
        NotFound: There is no such namespace.
        KubeError: The API refuses, or cannot be reached.
    """
    found, _ = await _snapshot(place, everywhere=everywhere)
    if not found and not everywhere:
        await place.require_namespace()
    return _ordered(found)


async def followed(
    place: Place, name: str | None, tell: Callable[[str], None], *, everywhere: bool = False
) -> AsyncIterator[Sequence[View]]:
    """Yield the deployments, or the one called ``name``, now and after each change, for ever.

    Once something was yielded, an API that cannot be reached is looked for until it can.

    Args:
        place: Where to look.
        name: The deployment; None for all.
        everywhere: Whether all namespaces are meant.
        tell: Is told once that the API is away, and once that it is back.

    Raises:
        NotFound: The one is not there, or goes.
        KubeError: The API refuses, or cannot be reached from the first.
    """
    if name is not None:
        await place.find(name)
    told: Sequence[View] | None = None
    away = False
    while True:
        try:
            async with aclosing(_changes(place, everywhere=everywhere)) as changes:
                async for found in changes:
                    views = _ordered(found) if name is None else [await _one(place, name, found)]
                    if away:
                        tell("the Kubernetes API answers again")
                    away = False
                    if views != told:
                        yield views
                    told = views
        except Unavailable as error:
            if told is None:
                raise
            if not away:
                cause = str(error).partition(": ")[2] or str(error)
                tell(
                    f"the Kubernetes API does not answer ({cause}); asking again until it does, and showing how it was"
                )
            away = True
        await asyncio.sleep(_PAUSE_S)


async def _one(place: Place, name: str, found: Mapping[tuple[str, str], Resource]) -> View:
    mine = found.get((place.namespace, name))
    if mine is None:
        raise NotFound(f"ModelDeployment {place.namespace}/{name} was deleted")
    return await _view(place, mine)


async def _changes(place: Place, *, everywhere: bool) -> AsyncGenerator[dict[tuple[str, str], Resource]]:
    """Yield all deployments by namespace and name, after each change, until the watch ends or breaks."""
    found, version = await _snapshot(place, everywhere=everywhere)
    yield found
    namespace = None if everywhere else place.namespace
    try:
        async for event in place.api.watch(MODEL_DEPLOYMENT, resource_version=version, namespace=namespace):
            if event.change is Change.BOOKMARK:
                continue
            if event.change is Change.DELETED:
                found.pop(_key(event.object), None)
            else:
                found[_key(event.object)] = event.object
            yield found
    except (Expired, Unavailable):  # whether the API is there at all the next look will tell
        return


async def _snapshot(place: Place, *, everywhere: bool) -> tuple[dict[tuple[str, str], Resource], str]:
    found: dict[tuple[str, str], Resource] = {}
    version = ""
    async for page in place.api.pages(MODEL_DEPLOYMENT, namespace=None if everywhere else place.namespace):
        found |= {_key(one): one for one in page.items}
        version = page.resource_version
    return found, version


def _key(resource: Resource) -> tuple[str, str]:
    return resource["metadata"]["namespace"], resource["metadata"]["name"]


def _ordered(found: dict[tuple[str, str], Resource]) -> Sequence[View]:
    return [View(_whole(found[key])) for key in sorted(found)]


def _whole(resource: Resource) -> Resource:
    """Return the resource with its type, which lists leave out, and without what nobody reads."""
    metadata = {name: part for name, part in resource["metadata"].items() if name != "managedFields"}
    head = {"apiVersion": MODEL_DEPLOYMENT.api_version, "kind": MODEL_DEPLOYMENT.kind}
    return {**head, **resource, "metadata": metadata}


async def _view(place: Place, resource: Resource) -> View:
    """Return the view of one deployment; what may not be read, or not be understood, is left out."""
    name = resource["metadata"]["name"]
    whole = _whole(resource)
    try:
        record = await place.record(name)
    except Forbidden:
        return View(whole)
    told = f"ConfigMap {place.namespace}/{record_name(name)}" if record else None
    try:
        found = deployed_from(place.cluster, resource, record)
    except ManifestError:
        return View(whole, record=told)
    return View(whole, targets_of(found.desired, found.rollout) if record else None, record=told)
