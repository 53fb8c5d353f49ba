"""Every version of VirtualServices and EnvoyFilters that the API server ever showed the gateway, and what must hold.

A route that a filter names and that has one destination makes Envoy refuse every route of the gateway; see
``render.hashed``. So it must not exist at any moment: versions of both kinds are replayed in the order they were
written, and looked at together after each.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import httpx

from fairlead import BUCKETS
from fairlead_operator.platforms.kubernetes.kinds import (
    DEPLOYMENT_LABEL,
    DEPLOYMENT_NAMESPACE_LABEL,
    ENVOY_FILTER,
    VIRTUAL_SERVICE,
)
from fairlead_operator.platforms.kubernetes.render import read_route
from support.cluster import Cluster
from support.cluster_api import Resource, Watch

Pair = tuple[Resource | None, Resource | None]
"""VirtualService and EnvoyFilter of one deployment at one moment."""


class RouteWrites:
    """Watches one namespace's routes and their filters while it is entered."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._admin = cluster.gateway.admin
        self._namespace = namespace
        self._routes = Watch(cluster.kubeconfig, VIRTUAL_SERVICE, namespace)
        self._filters = Watch(cluster.kubeconfig, ENVOY_FILTER, cluster.gateway.namespace)
        self._rejected_before = self.rejected()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._routes)
        self._stack.enter_context(self._filters)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def rejected(self) -> Mapping[str, int]:
        """Return how many updates the gateway's Envoy has refused so far, by what they were of."""
        text = httpx.get(f"{self._admin}/stats?filter=update_rejected", trust_env=False, timeout=10).text
        counts: Counter[str] = Counter()
        for name, count in re.findall(r"^(\S+): (\d+)$", text, re.MULTILINE):
            counts["rds" if ".rds." in name else name] += int(count)
        return counts

    def moments(self) -> Iterator[Pair]:
        """Yield what there was of one deployment after each write of it, in the order of the writes."""
        now: dict[str, dict[str, Resource]] = {}
        for change in sorted([*self._routes.changes, *self._filters.changes], key=lambda one: one.version):
            labels = change.resource["metadata"].get("labels") or {}
            if labels.get(DEPLOYMENT_NAMESPACE_LABEL) != self._namespace:
                continue
            pair = now.setdefault(labels[DEPLOYMENT_LABEL], {})
            pair[change.resource["kind"]] = change.resource
            if change.deleted:
                del pair[change.resource["kind"]]
            yield pair.get(VIRTUAL_SERVICE.kind), pair.get(ENVOY_FILTER.kind)

    def assert_safe(self) -> int:
        """Assert that no moment was dangerous, and return how many there were."""
        assert not [*self._routes.problems, *self._filters.problems], "changes may have been missed"
        moments = list(self.moments())
        for route, filter_ in moments:
            if route is not None:
                _assert_whole(route)
                _assert_split_by_law(route, filter_)
        assert self.rejected() == self._rejected_before, "Envoy refused an update"
        return len(moments)


def hashed_names(filter_: Resource) -> set[str]:
    """Return the routes that a filter names."""
    patches = filter_["spec"]["configPatches"]
    return {patch["match"]["routeConfiguration"]["vhost"]["route"]["name"] for patch in patches}


def _assert_whole(virtual_service: Resource) -> None:
    """Weights of each route sum to all buckets."""
    for route in virtual_service["spec"]["http"]:
        entries = route.get("route", [])
        assert not entries or sum(_weight(entry) for entry in entries) == BUCKETS, route


def _assert_split_by_law(virtual_service: Resource, filter_: Resource | None) -> None:
    """A route that the filter names has two destinations, and no treatment has weight while there is no filter."""
    named = hashed_names(filter_) if filter_ else set()
    for route in virtual_service["spec"]["http"]:
        if route.get("name") in named:
            assert len(route["route"]) > 1, f"one destination with the filter: {route}"
    told = read_route(virtual_service)
    assert told is not None
    assert told.is_whole or filter_ is not None, f"weight without a filter: {told}"


def _weight(entry: Mapping[str, Any]) -> int:
    return int(entry.get("weight", 0))
