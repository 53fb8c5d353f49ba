"""Which entries of a gateway a host has, and what proves that they split by the law."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from fairlead import assign
from fairlead_operator.errors import GatewayError
from fairlead_operator.platforms.kubernetes.addresses import in_url
from fairlead_operator.platforms.kubernetes.gateways import Entry, entries_of
from fairlead_operator.platforms.kubernetes.prove import UNITS, Prover
from fairlead_operator.platforms.kubernetes.render.probe import PROBE_ARM_HEADER, PROBE_LAYOUT
from fairlead_operator.platforms.kubernetes.writer import Obstacle
from fairlead_operator.runtime.keys import ObjectKey
from support.cluster_world import Scene, experiment, routing, scene_of
from support.rendering import KEY, route

BOTH = {"logistic": 90.0, "boosted": 10.0}
HOST = "delay.example.org"
FRONT = ObjectKey("istio-ingress", "public")
UNUSED = 9
"""A port where nobody answers."""
SIMPLE = {"mode": "SIMPLE", "credentialName": "c"}


def server(port: int, protocol: str, *hosts: str, **tls: Any) -> dict[str, Any]:
    made = {"port": {"number": port, "name": f"{protocol.lower()}-{port}", "protocol": protocol}, "hosts": list(hosts)}
    return {**made, "tls": tls} if tls else made


def entries(*servers: dict[str, Any], namespace: str = "flights", address: str = "10.0.0.8") -> list[Entry]:
    gateway = {"metadata": {"name": "public", "namespace": "istio-ingress"}, "spec": {"servers": list(servers)}}
    spec = {"clusterIP": address, "ports": [{"port": port} for port in (80, 443, 8443)]}
    return entries_of(
        gateway, [{"metadata": {"name": FRONT.name, "namespace": FRONT.namespace}, "spec": spec}], namespace
    )


def taking(*servers: dict[str, Any], host: str = HOST, namespace: str = "flights") -> list[tuple[int, bool]]:
    return [(one.port, one.tls) for one in entries(*servers, namespace=namespace) if one.takes(host)]


LABELS = st.sampled_from(["a", "b", "ab"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.one_of(NAMES, NAMES.map("*.{}".format), st.just("*"))
OF = st.sampled_from(["", "*/", "./", "flights/", "taxis/", "istio-ingress/"])
NAMESPACES = ("flights", "taxis", "istio-ingress")


@given(st.lists(st.tuples(OF, PATTERNS), max_size=4), NAMES, st.sampled_from(NAMESPACES))
def test_a_server_takes_what_istio_has_it_take(wanted: list[tuple[str, str]], host: str, namespace: str) -> None:
    taken = any(
        fnmatchcase(host, pattern) and of.removesuffix("/").replace(".", "istio-ingress") in {"", "*", namespace}
        for of, pattern in wanted
    )
    plain = server(80, "HTTP", *(of + pattern for of, pattern in wanted))
    assert taking(plain, host=host, namespace=namespace) == [(80, False)] * taken


@pytest.mark.parametrize(
    ("hosts", "taken"),
    [
        (["*"], True),
        (["*/*"], True),
        (["flights/*"], True),
        (["taxis/*"], False),
        (["./*"], False),
        (["*.example.org"], True),
        (["flights/*.example.org", "other.example.com"], True),
        (["*.delay.example.org"], False),
        (["example.org"], False),
        ([HOST.upper()], False),
        ([], False),
    ],
)
def test_hosts_of_a_server(hosts: list[str], taken: bool) -> None:
    assert taking(server(80, "HTTP", *hosts)) == [(80, False)] * taken


def test_a_server_that_redirects_is_not_asked() -> None:
    assert taking(server(80, "HTTP", "*", httpsRedirect=True), server(443, "HTTPS", "*", **SIMPLE)) == [(443, True)]


def test_of_two_servers_on_one_port_the_redirect_wins() -> None:
    servers = server(80, "HTTP", HOST), server(80, "HTTP", "*.example.org", httpsRedirect=True)
    assert taking(*servers) == []
    assert taking(*servers[::-1]) == []
    elsewhere = server(80, "HTTP", "*.example.com", httpsRedirect=True)
    assert taking(servers[0], elsewhere) == [(80, False)]


def test_servers_on_one_port_take_their_hosts_together() -> None:
    servers = server(443, "HTTPS", "other.example.org", **SIMPLE), server(443, "HTTPS", HOST, **SIMPLE)
    assert taking(*servers) == taking(*servers[::-1]) == [(443, True)]


@pytest.mark.parametrize(
    "other",
    [
        server(8443, "TLS", "*", mode="PASSTHROUGH"),
        server(8443, "HTTPS", "*", mode="PASSTHROUGH"),
        server(8443, "TLS", "*", mode="SIMPLE", credentialName="c"),
        server(8443, "TCP", "*"),
        server(9999, "HTTP", "*"),
    ],
)
def test_what_knows_no_http_or_is_on_no_port_of_the_service_is_not_asked(other: dict[str, Any]) -> None:
    assert taking(other, server(80, "HTTP2", "*")) == [(80, False)]


def test_addresses_of_either_family() -> None:
    servers = server(80, "HTTP", "*"), server(443, "HTTPS", "*", **SIMPLE)
    assert [one.url for one in entries(*servers)] == ["http://10.0.0.8:80", "https://10.0.0.8:443"]
    assert [one.url for one in entries(*servers, address="fd00::8")] == ["http://[fd00::8]:80", "https://[fd00::8]:443"]
    assert [in_url(name) for name in ("::1", "127.0.0.1", "lb.example")] == ["[::1]", "127.0.0.1", "lb.example"]


HOSTS = ("a.example.org", "b.example.org")
ROUTE = route(hosts=HOSTS)


class Asked:
    """A gateway that obeys, or sends all it is asked to one that does."""

    def __init__(self, leads_to: str = "") -> None:
        self.hosts: list[str] = []
        self.port = 0
        self._leads_to = leads_to

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Asked]:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            await runner.cleanup()

    def entry(self, *hosts: str) -> Entry:
        return Entry(FRONT, "127.0.0.1", self.port, tls=False, hosts=hosts)

    async def _answer(self, request: web.Request) -> web.Response:
        self.hosts.append(request.headers["Host"])
        if self._leads_to:
            raise web.HTTPMovedPermanently(self._leads_to + request.path)
        arm = assign(request.headers[ROUTE.reach.unit_header], ROUTE.salt, PROBE_LAYOUT)
        return web.Response(headers={PROBE_ARM_HEADER: str(arm)})


@asynccontextmanager
async def prover() -> AsyncIterator[Prover]:
    """Yield one that asks an entry again for no longer than it has asked it once."""
    async with aiohttp.ClientSession() as session:
        yield Prover(session, timeout_s=60, patience_s=0, now=lambda: 0.0)


async def test_each_entry_is_asked_for_the_hosts_that_it_takes() -> None:
    async with prover() as asks, Asked().open() as one, Asked().open() as other:
        await asks.prove(ROUTE, KEY, [one.entry("a.example.org"), other.entry("*.example.org"), other.entry()])
    assert one.hosts == ["a.example.org"] * len(UNITS)
    assert other.hosts == [host for host in HOSTS for _ in UNITS]


async def test_a_host_that_no_entry_takes_is_not_proven() -> None:
    async with prover() as asks, Asked().open() as one:
        with pytest.raises(Obstacle, match=r"Gateway .+/.+ has host b\.example\.org") as caught:
            await asks.prove(ROUTE, KEY, [one.entry("a.example.org")])
    assert caught.value.problem.reason == "AssignmentUnproven"
    assert one.hosts == []


async def test_a_redirect_is_no_proof() -> None:
    async with prover() as asks, Asked().open() as good, Asked(f"http://127.0.0.1:{good.port}").open() as elsewhere:
        await asks.prove(ROUTE, KEY, [good.entry("*")])
        good.hosts.clear()
        with pytest.raises(GatewayError, match="landed in no arm"):
            await asks.prove(ROUTE, KEY, [elsewhere.entry("*")])
    assert elsewhere.hosts
    assert good.hosts == []


def have(scene: Scene, *servers: dict[str, Any]) -> None:
    scene.server.patch("Gateway", "istio-ingress", "public", {"spec": {"servers": list(servers)}})


async def test_a_gateway_whose_other_server_redirects_is_proven(tmp_path: Path) -> None:
    async with scene_of(tmp_path, experiment()) as scene, scene.life() as life:
        ports = [{"name": f"port-{port}", "port": port, "protocol": "TCP"} for port in (UNUSED, scene.gateway.port)]
        scene.server.patch("Service", "istio-ingress", "public", {"spec": {"ports": ports}})
        redirect = server(UNUSED, "HTTP", "*", httpsRedirect=True)
        have(scene, redirect, server(scene.gateway.port, "HTTP", "flights/*.example.org"))
        await life.rest()
        assert life.error is None
        assert scene.weights == BOTH
        assert scene.condition("RoutingReady")[:2] == ("True", "AsSpecified")
        assert scene.status()["url"]["rest"] == f"http://{HOST}:{scene.gateway.port}"


@pytest.mark.parametrize("wrong", [["taxis/*"], ["*.example.com"], []])
async def test_a_host_that_no_server_takes_keeps_treatments_waiting(wrong: list[str], tmp_path: Path) -> None:
    async with scene_of(tmp_path, experiment(routing=routing())) as scene, scene.life() as life:
        have(scene, server(scene.gateway.port, "HTTP", *wrong))
        await life.rest()
        assert scene.weights == {"logistic": 100}
        status, reason, message = scene.condition("RoutingReady")
        assert (status, reason) == ("False", "AssignmentUnproven")
        assert "Gateway istio-ingress/public has host delay.example.org" in message
        assert "url" not in scene.status()
        assert scene.gateway.asked == 0
        life.woken.clear()
        have(scene, server(scene.gateway.port, "HTTP", "./other.example.org", f"*/{HOST}"))
        life.see()
        assert life.woken
        await life.rest()
        assert scene.weights == BOTH
