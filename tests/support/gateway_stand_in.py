"""A gateway that does what Istio's does with our routes: it reads VirtualServices and EnvoyFilters from the API server.

Without a filter on a route it draws by chance, as Envoy does; with one it hashes as the filter's policy says. A filter
on a route with one destination alone would have Envoy refuse the whole configuration: here all requests then fail.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import xxhash
from aiohttp import web

from support.kube import KubeApiServer

Headers = Mapping[str, str]
LABELS = {"istio": "ingressgateway"}


@dataclass(frozen=True, slots=True)
class Landed:
    """Where a request came to."""

    status: int
    revision: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """That the route sets on the answer."""
    sent: Mapping[str, str] = field(default_factory=dict)
    """That the route sets on the request."""


class StandInGateway:
    """One Gateway, its pods' namespace, and a port that answers."""

    def __init__(self, server: KubeApiServer, name: str = "public", namespace: str = "istio-ingress") -> None:
        """Prepare the gateway ``namespace/name``; its pods are in the same namespace."""
        self._server = server
        self._dice = random.Random(7)  # noqa: S311 -- draws requests
        self.name = name
        self.namespace = namespace
        self.labels = {**LABELS, "gateway": name}
        self.port = 0
        self.obeys = True
        """Whether filters have any effect; some gateways are too old."""
        self.asked = 0

    @asynccontextmanager
    async def open(self) -> Any:
        """Listen on a free port, and put Gateway, Service and pod into the cluster."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            self.install()
            yield self
        finally:
            await runner.cleanup()

    def install(self) -> None:
        """Put its objects into the cluster."""
        self._server.add_namespace(self.namespace)
        for made in self.objects():
            self._server.create(made)

    def objects(self) -> Iterator[dict[str, Any]]:
        """Yield what a platform team installs."""
        meta = {"name": self.name, "namespace": self.namespace}
        servers = [{"port": {"number": self.port, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]
        gateway = {"selector": self.labels, "servers": servers}
        yield {"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": meta, "spec": gateway}
        port = {"name": "http", "port": self.port, "targetPort": self.port, "protocol": "TCP"}
        service = {"clusterIP": "127.0.0.1", "selector": self.labels, "ports": [port]}
        yield {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service}
        pod = {"name": f"{self.name}-0", "namespace": self.namespace, "labels": {**self.labels, "app": "gateway"}}
        containers = [{"name": "istio-proxy", "image": "proxy"}]
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": pod, "spec": {"containers": containers}}

    def land(self, host: str, path: str, headers: Headers) -> Landed:
        """Return what becomes of a request; header names are in lower case."""
        for service in self._services(host):
            for route in service["spec"]["http"]:
                if _matches(route, path, headers):
                    return self._through(route, headers)
        return Landed(404)

    def _services(self, host: str) -> Iterator[dict[str, Any]]:
        if not self._serves("VirtualService"):
            return
        for service in self._server.objects("VirtualService"):
            spec = service["spec"]
            if host in spec["hosts"] and f"{self.namespace}/{self.name}" in spec["gateways"]:
                yield service

    def _serves(self, kind: str) -> bool:
        return any(served.kind == kind for served in self._server.catalog)

    def _through(self, route: dict[str, Any], headers: Headers) -> Landed:
        if "directResponse" in route:
            return Landed(route["directResponse"]["status"])
        destinations, policy = route["route"], self.policy(route["name"])
        if policy is not None and len(destinations) < 2:
            return Landed(503)
        widths = [one.get("weight", 10_000 if len(destinations) == 1 else 0) for one in destinations]
        bucket = self._dice.randrange(sum(widths))
        if policy is not None and policy["header_name"] in headers:
            bucket = _hashed(policy, headers[policy["header_name"]]) % sum(widths)
        for one, width in zip(destinations, widths, strict=True):
            bucket -= width
            if bucket < 0:
                given = one.get("headers", {})
                revision = one["destination"]["host"].split("-predictor.")[0]
                return Landed(
                    200, revision, given.get("response", {}).get("set", {}), given.get("request", {}).get("set", {})
                )
        raise AssertionError("weights do not sum up")

    def policy(self, route: str) -> dict[str, Any] | None:
        """Return the hash policy that filters put on a route; None if it is drawn by chance."""
        if not self.obeys or not self._serves("EnvoyFilter"):
            return None
        for live in self._server.objects("EnvoyFilter", self.namespace):
            selector = live["spec"].get("workloadSelector", {}).get("labels", {})
            if not selector.items() <= self.labels.items():
                continue
            for patch in live["spec"].get("configPatches", ()):
                vhost = patch["match"].get("routeConfiguration", {}).get("vhost", {})
                if vhost.get("route", {}).get("name") == route:
                    policy: dict[str, Any] = patch["patch"]["value"]["route"]["hash_policy"][0]["header"]
                    return policy
        return None

    async def _handle(self, request: web.Request) -> web.Response:
        self.asked += 1
        headers = {name.lower(): value for name, value in request.headers.items()}
        landed = self.land(request.headers["Host"], request.path, headers)
        return web.Response(status=landed.status, headers=dict(landed.headers))


def _hashed(policy: dict[str, Any], value: str) -> int:
    rewrite = policy["regex_rewrite"]
    text = re.sub(rewrite["pattern"]["regex"], rewrite["substitution"], value, count=1)
    return xxhash.xxh64_intdigest(text.encode())


def _matches(route: dict[str, Any], path: str, headers: Headers) -> bool:
    matches = route.get("match")
    return not matches or any(
        _is_like(match["uri"], path)
        and all(_is_like(wanted, headers.get(name)) for name, wanted in match.get("headers", {}).items())
        for match in matches
    )


def _is_like(wanted: Mapping[str, str], value: str | None) -> bool:
    if value is None:
        return False
    if not wanted:
        return True
    ((sort, text),) = wanted.items()
    if sort == "regex":
        return re.fullmatch(text, value) is not None
    return value.startswith(text) if sort == "prefix" else value == text
