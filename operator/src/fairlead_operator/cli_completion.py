"""What a shell offers while somebody types: names from the cluster, or from the state folder. Quick, or silent."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from fairlead_operator.platforms.kubernetes.client import KubeClient

_DEADLINE_S = 3.0

Names = list[tuple[str, str]]
"""Names, and what is said of each."""


def namespaces(context: typer.Context, incomplete: str) -> Names:
    """Return the cluster's namespaces."""

    async def listed(api: KubeClient, _: str) -> Names:
        from fairlead_operator.platforms.kubernetes.kinds import NAMESPACE  # noqa: PLC0415 -- --help stays quick

        return [(one["metadata"]["name"], "") for one in await api.list(NAMESPACE)]

    return _fitting(_from_cluster(context.params, listed), incomplete)


def contexts(context: typer.Context, incomplete: str) -> Names:
    """Return the kubeconfig's contexts."""
    try:
        from fairlead_operator.platforms.kubernetes.contexts import (  # noqa: PLC0415 -- --help stays quick
            contexts as known,
        )

        return _fitting([(name, "") for name in known(context.params.get("kubeconfig")).namespaces], incomplete)
    except Exception:  # noqa: BLE001 -- a shell shows nothing rather than an error
        return []


def deployments(context: typer.Context, incomplete: str) -> Names:
    """Return the deployments of the namespace, or of the state folder."""
    return _fitting([(name, _said(one)) for name, one in _deployments(context.params).items()], incomplete)


def first_deployment(context: typer.Context, incomplete: str) -> Names:
    """Return the deployments of the namespace where none is named yet: units come after it."""
    return [] if context.params.get("words") or context.params.get("file") else deployments(context, incomplete)


def variants(context: typer.Context, incomplete: str) -> Names:
    """Return the variants of the deployment that was named."""
    named = _deployments(context.params).get(context.params.get("name") or "", {})
    listed = named.get("spec", {}).get("variants", [])
    return _fitting([(one["name"], one.get("role", "")) for one in listed], incomplete)


def _deployments(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    if given.get("namespace") is None:
        return _on_this_machine(given.get("state") or Path(".fairlead"))

    async def listed(api: KubeClient, namespace: str) -> list[dict[str, Any]]:
        from fairlead_operator.platforms.kubernetes.kinds import MODEL_DEPLOYMENT  # noqa: PLC0415 -- see above

        return list(await api.list(MODEL_DEPLOYMENT, namespace=namespace))

    return {one["metadata"]["name"]: one for one in _from_cluster(given, listed)}


def _on_this_machine(state: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for file in sorted(state.glob("*/status.json")):
        try:
            found[file.parent.name] = json.loads(file.read_bytes())
        except (OSError, ValueError):
            continue
    return found


def _from_cluster(given: Mapping[str, Any], work: Callable[[KubeClient, str], Awaitable[list[Any]]]) -> list[Any]:
    """Return what ``work`` finds in the cluster that was named so far; nothing if that takes long, or fails."""
    try:
        import asyncio  # noqa: PLC0415 -- --help stays quick

        from fairlead_operator.platforms.kubernetes.client import Patience  # noqa: PLC0415 -- see above
        from fairlead_operator.platforms.kubernetes.contexts import Cluster, opened  # noqa: PLC0415 -- see above

        cluster = Cluster(given.get("namespace") or "", given.get("context"), given.get("kubeconfig"))

        async def ask() -> list[Any]:
            async with asyncio.timeout(_DEADLINE_S), opened(cluster, Patience(attempts=1)) as (api, namespace):
                return await work(api, namespace)

        return asyncio.run(ask())
    except Exception:  # noqa: BLE001 -- a shell shows nothing rather than an error
        return []


def _fitting(names: Iterable[tuple[str, str]], incomplete: str) -> Names:
    return sorted(one for one in names if one[0].startswith(incomplete))


def _said(resource: Mapping[str, Any]) -> str:
    conditions = (resource.get("status") or {}).get("conditions") or ()
    ready: Mapping[str, Any] = next((one for one in conditions if one.get("type") == "Ready"), {})
    return "Ready" if ready.get("status") == "True" else ready.get("reason", "")
