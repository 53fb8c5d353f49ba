"""Every version of routes, filters and policies that the API server ever showed the gateway, and what must hold.

A route that a filter names and that has one destination makes Envoy refuse every route of the gateway; see
``render.hashed``. So it must not exist at any moment: versions of all kinds are replayed in the order they were
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
from fairlead_operator.core.observed import Route
from fairlead_operator.platforms.kubernetes.kinds import (
    AUTHORIZATION_POLICY,
    DEPLOYMENT_LABEL,
    DEPLOYMENT_NAMESPACE_LABEL,
    ENVOY_FILTER,
    VIRTUAL_SERVICE,
)
from fairlead_operator.platforms.kubernetes.render import read_route
from support.cluster import Cluster
from support.cluster_api import Resource, Watch

Moment = Mapping[str, Resource]
"""What there was of one deployment's at one moment, by kind."""


class RouteWrites:
    """Watches one namespace's routes and their filters while it is entered."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._admin = cluster.gateway.admin
        self._namespace = namespace
        places = {VIRTUAL_SERVICE: namespace, ENVOY_FILTER: cluster.gateway.namespace}
        places[AUTHORIZATION_POLICY] = cluster.gateway.namespace
        self._watches = [Watch(cluster.kubeconfig, kind, place) for kind, place in places.items()]
        self._rejected_before = self.rejected()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for watch in self._watches:
            self._stack.enter_context(watch)
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

    def moments(self) -> Iterator[Moment]:
        """Yield what there was of a deployment after each write of its own, in the order of the writes."""
        now: dict[str, dict[str, Resource]] = {}
        changes = [change for watch in self._watches for change in watch.changes]
        for change in sorted(changes, key=lambda one: one.version):
            labels = change.resource["metadata"].get("labels") or {}
            if labels.get(DEPLOYMENT_NAMESPACE_LABEL) != self._namespace:
                continue
            there = now.setdefault(labels[DEPLOYMENT_LABEL], {})
            there[change.resource["kind"]] = change.resource
            if change.deleted:
                del there[change.resource["kind"]]
            yield dict(there)

    def routes(self, deployment: str) -> Iterator[Route]:
        """Yield every route that a deployment had, in order, some of them more than once."""
        for moment in self.moments():
            live = moment.get(VIRTUAL_SERVICE.kind)
            if live is not None and live["metadata"]["name"] == deployment:
                yield _route(live)

    def assert_safe(self) -> int:
        """Assert that no moment was dangerous, and return how many there were."""
        assert not [problem for watch in self._watches for problem in watch.problems], "changes may have been missed"
        moments = list(self.moments())
        for moment in moments:
            if VIRTUAL_SERVICE.kind in moment:
                _assert_whole(moment[VIRTUAL_SERVICE.kind])
                _assert_split_by_law(moment)
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


def _assert_split_by_law(moment: Moment) -> None:
    """A hashed route has two destinations; nobody is split without the filter, and the policy where units need it."""
    virtual_service, filter_ = moment[VIRTUAL_SERVICE.kind], moment.get(ENVOY_FILTER.kind)
    named = hashed_names(filter_) if filter_ else set()
    for route in virtual_service["spec"]["http"]:
        if route.get("name") in named:
            assert len(route["route"]) > 1, f"one destination with the filter: {route}"
    told = _route(virtual_service)
    assert told.is_whole or filter_ is not None, f"weight without a filter: {told}"
    claimed = told.reach.unit.jwt_claim is not None
    assert told.is_whole or not claimed or AUTHORIZATION_POLICY.kind in moment, f"weight without a policy: {told}"


def _route(virtual_service: Resource) -> Route:
    route = read_route(virtual_service)
    assert route is not None
    return route


def _weight(entry: Mapping[str, Any]) -> int:
    return int(entry.get("weight", 0))
