"""Lives of gateways' processes: each has a log of its own. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from fairlead_operator.runtime.keys import ObjectKey

_PROXY: Final = "istio-proxy"
"""What Istio calls the container of its proxies."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One life of a gateway's container."""

    id: str
    """The container runtime's; anew with each start."""
    pod: ObjectKey
    container: str
    started_us: int
    """Microseconds since 1970-01-01 UTC."""
    ended_us: int | None = None
    """None while it runs."""
    is_previous: bool = False
    """Whether the container has begun another life since."""


def instances_of(pods: Iterable[Mapping[str, Any]]) -> Iterator[Instance]:
    """Yield the present life of each pod's gateway, and the last one if the pod tells of it."""
    for pod in pods:
        statuses = pod.get("status", {}).get("containerStatuses") or ()
        proxy = next((one for one in statuses if one.get("name") == _PROXY), next(iter(statuses), None))
        if proxy is not None:
            key = ObjectKey(pod["metadata"]["namespace"], pod["metadata"]["name"])
            for group in ("state", "lastState"):
                yield from _lives(key, proxy, group)


def _lives(pod: ObjectKey, proxy: Mapping[str, Any], group: str) -> Iterator[Instance]:
    name, state = str(proxy.get("name")), proxy.get(group) or {}
    running, ended = state.get("running"), state.get("terminated")
    if running and running.get("startedAt") and proxy.get("containerID"):
        yield Instance(proxy["containerID"], pod, name, _us(running["startedAt"]))
    elif ended and ended.get("containerID") and ended.get("startedAt") and ended.get("finishedAt"):
        began_us, ended_us = _us(ended["startedAt"]), _us(ended["finishedAt"])
        yield Instance(ended["containerID"], pod, name, began_us, ended_us, is_previous=group == "lastState")


def _us(stamp: str) -> int:
    return round(datetime.fromisoformat(stamp).timestamp()) * 1_000_000
