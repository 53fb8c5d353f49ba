"""The gateways that a deployment's routes are on: which pods they are, where they answer, and whose hosts they have."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead_operator.platforms.kubernetes.addresses import in_url
from fairlead_operator.platforms.kubernetes.api import KubeApi
from fairlead_operator.platforms.kubernetes.kinds import GATEWAY, POD, REQUEST_AUTHENTICATION, SERVICE
from fairlead_operator.platforms.kubernetes.store import Objects
from fairlead_operator.runtime.keys import ObjectKey

Resource = Mapping[str, Any]

_REMEMBERED_S = 30.0

_PLAIN = frozenset({"HTTP", "HTTP2", "HTTP_PROXY", "GRPC", "GRPC-WEB"})
_PASSED_ON = frozenset({"PASSTHROUGH", "AUTO_PASSTHROUGH"})


@dataclass(frozen=True, slots=True)
class Selected:
    """The pods that a Gateway selects in one namespace: what a filter must stand beside."""

    namespace: str
    selector: Mapping[str, str]
    pod_labels: tuple[Mapping[str, str], ...]

    def is_selected_by(self, labels: Mapping[str, str]) -> bool:
        """Return whether a policy's selector takes all these pods; an empty one takes every pod of the namespace."""
        return all(labels.items() <= dict(pod).items() for pod in self.pod_labels)


@dataclass(frozen=True, slots=True)
class Entry:
    """One port of a gateway's Service."""

    service: ObjectKey
    address: str
    """Cluster IP."""
    port: int
    tls: bool
    hosts: tuple[str, ...] = ()
    """Hosts, or patterns of them, whose routes answer here, of those in the namespace that was asked for."""
    redirected: tuple[str, ...] = ()
    """Those that are sent elsewhere, whatever ``hosts`` says."""

    def takes(self, host: str) -> bool:
        """Return whether the routes of ``host`` answer here."""
        return _is_among(host, self.hosts) and not _is_among(host, self.redirected)

    @property
    def url(self) -> str:
        """Where it answers, by its address."""
        return f"{'https' if self.tls else 'http'}://{in_url(self.address)}:{self.port}"

    @property
    def internal(self) -> str:
        """Where callers inside the cluster reach it, with the Host of the deployment."""
        scheme = "https" if self.tls else "http"
        port = "" if self.port in {80, 443} else f":{self.port}"
        return f"{scheme}://{self.service.name}.{self.service.namespace}.svc{port}"


@dataclass(frozen=True, slots=True)
class Gateways:
    """Everything known about the gateways of one deployment."""

    selected: tuple[Selected, ...] = ()
    entries: tuple[Entry, ...] = ()
    missing: tuple[str, ...] = ()
    """Gateways that are not there, or select no pods."""


class GatewayFinder:
    """Finds gateways' pods and Services; what it read it remembers for a while, as all deployments share them."""

    def __init__(self, api: KubeApi, objects: Objects, now: Callable[[], float], namespaces: Sequence[str]) -> None:
        """Make a finder.

        Args:
            api: Where pods and Services are read.
            objects: Where Gateways are kept.
            now: A clock that never goes back, seconds.
            namespaces: Where gateways' pods are looked for; everywhere if empty.
        """
        self._api = api
        self._objects = objects
        self._now = now
        self._namespaces = tuple(namespaces) or (None,)
        self._found: dict[tuple[str, ...], tuple[float, tuple[tuple[Resource, ...], tuple[Resource, ...]]]] = {}

    async def find(self, names: Iterable[str], namespace: str) -> Gateways:
        """Return what is known of the Gateways ``names``, each ``namespace/name``, for routes in ``namespace``."""
        selected: dict[tuple[str, tuple[tuple[str, str], ...]], Selected] = {}
        entries: list[Entry] = []
        missing: list[str] = []
        for name in names:
            gateway = self._objects.get(GATEWAY, ObjectKey(*name.split("/", 1)))
            selector = (gateway or {}).get("spec", {}).get("selector", {})
            pods, services = await self._behind(selector) if selector else ((), ())
            if gateway is None or not pods:
                missing.append(name)
                continue
            for there in sorted({pod["metadata"]["namespace"] for pod in pods}):
                labels = tuple(p["metadata"].get("labels", {}) for p in pods if p["metadata"]["namespace"] == there)
                place = (there, tuple(sorted(selector.items())))
                selected[place] = Selected(there, dict(selector), labels)
            entries += entries_of(gateway, services, namespace)
        return Gateways(tuple(selected.values()), tuple(entries), tuple(missing))

    async def _behind(self, selector: Mapping[str, str]) -> tuple[tuple[Resource, ...], tuple[Resource, ...]]:
        """Return the pods that ``selector`` takes, and the Services in front of them."""
        key = tuple(f"{name}={value}" for name, value in sorted(selector.items()))
        known = self._found.get(key)
        if known is not None and self._now() - known[0] < _REMEMBERED_S:
            return known[1]
        pods = [
            pod
            for namespace in self._namespaces
            for pod in await self._api.list(POD, namespace=namespace, labels=selector)
        ]
        services = []
        for namespace in sorted({pod["metadata"]["namespace"] for pod in pods}):
            labels = [pod["metadata"].get("labels", {}) for pod in pods if pod["metadata"]["namespace"] == namespace]
            found_there = await self._api.list(SERVICE, namespace=namespace)
            services += [service for service in found_there if _stands_before(service, labels)]
        found = (tuple(pods), tuple(services))
        if pods:  # a gateway that is just being installed is looked for again at once
            self._found[key] = (self._now(), found)
        return found


def _stands_before(service: Resource, labels: Iterable[Mapping[str, str]]) -> bool:
    wanted = service.get("spec", {}).get("selector") or {}
    return bool(wanted) and any(wanted.items() <= pod.items() for pod in labels)


def claim_issuers(objects: Objects, selected: Selected, claim: str, header: str) -> tuple[str, ...]:
    """Return the issuers of whose tokens a RequestAuthentication on these pods copies ``claim`` into ``header``."""
    issuers: set[str] = set()
    for key in objects.keys(REQUEST_AUTHENTICATION):
        policy = objects.get(REQUEST_AUTHENTICATION, key)
        if policy is None or key.namespace != selected.namespace:
            continue
        spec = policy.get("spec", {})
        labels = spec.get("selector", {}).get("matchLabels", {})
        if selected.is_selected_by(labels):
            issuers |= {rule["issuer"] for rule in spec.get("jwtRules", []) if _copies(rule, claim, header)}
    return tuple(sorted(issuers))


def _copies(rule: Resource, claim: str, header: str) -> bool:
    copied = rule.get("outputClaimToHeaders", [])
    return any(one.get("claim") == claim and str(one.get("header", "")).lower() == header for one in copied)


def _is_among(host: str, patterns: Iterable[str]) -> bool:
    """Return whether one of ``patterns`` is ``host``, or begins with ``*`` and ends as ``host`` does (Istio's rule)."""
    return any(host.endswith(one[1:]) if one.startswith("*") else host == one for one in patterns)


def _hosts_for(namespace: str, server: Resource, own: str) -> Iterator[str]:
    """Yield the hosts that a server has for routes in ``namespace``; ``.`` is the Gateway's ``own`` namespace."""
    for host in server.get("hosts") or ():
        of, slash, name = host.rpartition("/")
        if not slash or of in {"*", namespace} or (of == "." and own == namespace):
            yield name


@dataclass(slots=True)
class _Listener:
    """What the servers of a Gateway on one port take together."""

    hosts: list[str] = field(default_factory=list)
    redirected: list[str] = field(default_factory=list)


def _listeners(gateway: Resource, namespace: str) -> dict[tuple[int, bool], _Listener]:
    """Return the listeners of a Gateway by port and whether it is TLS, with what they have for ``namespace``."""
    found: dict[tuple[int, bool], _Listener] = {}
    for server in gateway.get("spec", {}).get("servers") or ():
        protocol, tls = server["port"].get("protocol", "HTTP").upper(), server.get("tls") or {}
        listener = found.setdefault((int(server["port"]["number"]), protocol in {"HTTPS", "TLS"}), _Listener())
        hosts = _hosts_for(namespace, server, gateway["metadata"]["namespace"])
        if protocol in _PLAIN and tls.get("httpsRedirect"):  # requests that came by TLS are not redirected
            listener.redirected += hosts
        elif protocol in _PLAIN or (protocol == "HTTPS" and tls.get("mode") not in _PASSED_ON):
            listener.hosts += hosts  # the others know no HTTP, and so none of our routes
    return found


def entries_of(gateway: Resource, services: Iterable[Resource], namespace: str) -> list[Entry]:
    """Return the ports of ``services`` that a Gateway has servers on, with what they take of ``namespace``."""
    listeners = _listeners(gateway, namespace)
    entries = []
    for service in services:
        address = service.get("spec", {}).get("clusterIP", "")
        if not address or address == "None":
            continue
        key = ObjectKey(service["metadata"]["namespace"], service["metadata"]["name"])
        entries += [
            Entry(key, address, number, tls, tuple(listener.hosts), tuple(listener.redirected))
            for port in service["spec"].get("ports", [])
            for (number, tls), listener in listeners.items()
            if port["port"] == number
        ]
    return entries


Place = tuple[str, str]
"""A Gateway, and a host on it."""


def _nowhere(key: ObjectKey) -> frozenset[Place]:
    del key
    return frozenset()


@dataclass(slots=True)
class Hosts:
    """Which deployments ask for which host on which gateway; who is reached there keeps it, else the oldest has it."""

    reached: Callable[[ObjectKey], frozenset[Place]] = _nowhere
    """Where the route in force of a deployment is."""
    _claims: dict[Place, dict[ObjectKey, str]] = field(default_factory=dict)
    _of: dict[ObjectKey, frozenset[Place]] = field(default_factory=dict)

    def claim(self, key: ObjectKey, created: str, hosts: Iterable[str], gateways: Iterable[str]) -> None:
        """Note what ``key``, made at ``created`` (ISO 8601 UTC), asks for; it asks for nothing else any more."""
        wanted = frozenset(itertools.product(gateways, hosts))
        for place in self._of.get(key, frozenset()) - wanted:
            self._claims[place].pop(key, None)
            if not self._claims[place]:
                del self._claims[place]
        for place in wanted:
            self._claims.setdefault(place, {})[key] = created
        self._of[key] = wanted

    def release(self, key: ObjectKey) -> None:
        """Note that ``key`` has gone."""
        self.claim(key, "", (), ())
        del self._of[key]

    def lost(self, key: ObjectKey) -> dict[str, ObjectKey]:
        """Return the hosts that ``key`` asks for and another deployment has on any gateway, and which one."""
        holders = ((place[1], self._holder(place)) for place in sorted(self._of.get(key, ())))
        return {host: holder for host, holder in holders if holder != key}

    def rivals(self, key: ObjectKey) -> frozenset[ObjectKey]:
        """Return the others that ask for a host that ``key`` asks for."""
        return frozenset(other for place in self._of.get(key, ()) for other in self._claims[place] if other != key)

    def _holder(self, place: Place) -> ObjectKey:
        claims = self._claims[place]
        if len(claims) == 1:
            return next(iter(claims))
        return min(claims, key=lambda key: (place not in self.reached(key), claims[key], str(key)))
