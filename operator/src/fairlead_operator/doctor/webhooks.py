"""Where a controller answers: from its webhooks, by a Service in the cluster or by an address outside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fairlead_operator.doctor.kinds import ENDPOINT_SLICE
from fairlead_operator.doctor.objects import Resource
from fairlead_operator.doctor.reader import Reader


@dataclass(frozen=True, slots=True)
class Answering:
    """Where a webhook is to be answered."""

    address: str
    """``namespace/name`` of a Service, or a URL."""
    outside: bool
    """Whether it is a URL: the controller is no pod of this cluster, as far as can be told."""
    endpoints: int | None = None
    """Ready addresses behind the Service; None if that cannot be told."""


def client_configs(configurations: Iterable[Resource], group: str) -> list[Resource]:
    """Return the clientConfig of every webhook that is called for objects of an API group."""
    return [
        webhook["clientConfig"]
        for configuration in configurations
        for webhook in configuration.get("webhooks") or ()
        if any(group in (rule.get("apiGroups") or ()) for rule in webhook.get("rules") or ())
    ]


async def answering(reader: Reader, configs: Iterable[Resource]) -> Answering | None:
    """Return where the first of ``configs`` is answered; None without any."""
    for config in configs:
        if config.get("url"):
            return Answering(str(config["url"]).partition("?")[0], outside=True)
        service = config.get("service") or {}
        namespace, name = service.get("namespace", ""), service.get("name", "")
        return Answering(f"{namespace}/{name}", outside=False, endpoints=await endpoints(reader, namespace, name))
    return None


async def endpoints(reader: Reader, namespace: str, service: str) -> int | None:
    """Return how many ready addresses a Service has; None if that cannot be told."""
    slices = await reader.all(ENDPOINT_SLICE, namespace, {"kubernetes.io/service-name": service})
    if slices.problem or slices.kind_missing:
        return None
    ready = [
        address
        for one in slices.items
        for endpoint in one.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready", True) is not False
        for address in endpoint.get("addresses") or ()
    ]
    return len(set(ready))
