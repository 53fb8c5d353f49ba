"""Where the gateway of a deployment answers, seen from here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fairlead_operator.errors import OperatorError
from fairlead_operator.platforms.kubernetes.addresses import in_url
from fairlead_operator.platforms.kubernetes.api import KubeApi
from fairlead_operator.platforms.kubernetes.errors import KubeError
from fairlead_operator.platforms.kubernetes.kinds import SERVICE
from fairlead_operator.runtime.keys import ObjectKey

_CONNECT_S = 3.0
_LOCAL_PORT = 8080


class GatewayUnreachable(OperatorError):
    """No address of the gateway answers here."""


@dataclass(frozen=True, slots=True)
class Entrance:
    """A deployment's gateway, and the host that it knows the deployment by."""

    service: ObjectKey
    port: int
    scheme: str
    host: str
    """What requests name as their Host."""

    def forwarding(self) -> str:
        """Return the commands that make the gateway reachable."""
        forward = f"kubectl port-forward -n {self.service.namespace} service/{self.service.name}"
        return f"`{forward} {_LOCAL_PORT}:{self.port}` and --url {self.scheme}://127.0.0.1:{_LOCAL_PORT}"


def entrance_of(resource: Mapping[str, Any]) -> Entrance:
    """Return the entrance that the status of a ModelDeployment tells of.

    Raises:
        GatewayUnreachable: It tells of none (yet).
    """
    url = (resource.get("status") or {}).get("url") or {}
    rest, internal = urlsplit(url.get("rest") or ""), urlsplit(url.get("internal") or "")
    labels = (internal.hostname or "").split(".")
    if not rest.hostname or len(labels) < 2:  # noqa: PLR2004 -- NAME.NAMESPACE.svc
        metadata = resource["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        message = f"has no address yet; `fairlead status {name} -n {namespace}` says why"
        raise GatewayUnreachable(f"{namespace}/{name}: {message}")
    port = internal.port or (443 if internal.scheme == "https" else 80)
    return Entrance(ObjectKey(labels[1], labels[0]), port, internal.scheme, rest.hostname)


async def reachable(api: KubeApi, entrance: Entrance) -> str:
    """Return the base URL of the first of the gateway's addresses that answers here.

    Raises:
        GatewayUnreachable: None does, or they may not be read; the message says what to do.
    """
    try:
        service = await api.get(SERVICE, entrance.service)
    except KubeError as error:
        message = f"the gateway's Service cannot be read ({error})"
        raise GatewayUnreachable(f"{message}; run {entrance.forwarding()}") from error
    tried = []
    for address in addresses(service):
        if await _answers(address, entrance.port):
            return f"{entrance.scheme}://{in_url(address)}:{entrance.port}"
        tried.append(f"{in_url(address)}:{entrance.port}")
    where = f"no address of the gateway {entrance.service} answers here (tried {', '.join(tried) or 'none'})"
    raise GatewayUnreachable(f"{where}; run {entrance.forwarding()}")


def addresses(service: Mapping[str, Any]) -> Sequence[str]:
    """Return a Service's addresses, those first that are meant for callers from outside."""
    return list(dict.fromkeys(_addresses(service)))


def _addresses(service: Mapping[str, Any]) -> Iterator[str]:
    spec = service.get("spec", {})
    for ingress in service.get("status", {}).get("loadBalancer", {}).get("ingress") or ():
        yield from (ingress[name] for name in ("ip", "hostname") if ingress.get(name))
    yield from spec.get("externalIPs") or ()
    if spec.get("clusterIP", "None") not in {"", "None"}:  # reachable in the cluster, and on its nodes
        yield spec["clusterIP"]


async def _answers(address: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(address, port)
    except OSError:  # a timeout is one, too
        return False
    writer.close()
    return True
