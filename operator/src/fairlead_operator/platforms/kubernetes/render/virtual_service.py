"""The VirtualService of a deployment, written whole: the cluster's form of what ``local.xds`` renders for one machine.

Headers are set and removed on each destination, never on a route, because a route's removals would also take what
its destinations set.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from fairlead import BUCKETS
from fairlead.route import (
    COOKIE_SOURCE,
    EXPERIMENT_HEADER,
    HEADER_SOURCE,
    OVERRIDE_HEADER,
    UNIT_PATTERN,
    VARIANT_HEADER,
    ExperimentRoute,
    RouteKey,
    cookie_pattern,
)
from fairlead_operator.api.v1alpha1 import seconds
from fairlead_operator.core.observed import Destination, Route
from fairlead_operator.platforms.kubernetes.kinds import VIRTUAL_SERVICE
from fairlead_operator.platforms.kubernetes.render.hashed import (
    REQUEST_ID_HEADER,
    Protocol,
    Split,
    route_name,
)
from fairlead_operator.platforms.kubernetes.render.names import Manifest, Place, owned
from fairlead_operator.platforms.kubernetes.render.pods import SERVICE_GRPC_PORT, SERVICE_HTTP_PORT
from fairlead_operator.platforms.kubernetes.render.probe import (
    PROBE_ARM_HEADER,
    PROBE_HEADER,
    PROBE_LAYOUT,
    PROBE_PATH,
    probe_value,
)
from fairlead_operator.platforms.kubernetes.render.route_text import ROUTE_ANNOTATION, route_text
from fairlead_operator.platforms.unanswered import UNIT_COPY

_REST_PATHS: Final = (
    r"/v1/models(/[^/:]+(:(predict|explain))?)?"
    r"|/v2(/health/(live|ready)|/repository/index|/models(/[^/]+(/versions/[^/]+)?(/(infer|ready))?)?)?"
)
_GRPC_PREFIX: Final = "/inference.GRPCInferenceService/"
_GRPC_CONTENT: Final = r"application/grpc([+;].*)?"
_RETRY_ON: Final = "connect-failure,refused-stream,reset-before-request"

_SHORTEST_S: Final = 0.001
"""What Istio takes; 0 would be no limit at all."""

_GRPC_CODES: Final = {400: "3", 404: "12", 503: "14"}
"""gRPC status by the HTTP status that stands for it."""


def virtual_service(
    place: Place, route: Route, key: RouteKey, *, annotations: Mapping[str, str] | None = None
) -> Manifest:
    """Return the VirtualService that does what ``route`` says.

    Args:
        place: Where.
        route: What the gateway is to do with every request; it is also kept as text, for ``read_route``.
        key: Signs experiment headers.
        annotations: Others to keep on the object.
    """
    manifest = owned(
        VIRTUAL_SERVICE, place, place.name, annotations={**(annotations or {}), ROUTE_ANNOTATION: route_text(route)}
    )
    manifest["spec"] = {
        "hosts": list(route.reach.hosts),
        "gateways": list(route.reach.gateways),
        "http": list(_routes(place, route, key)),
    }
    return manifest


def _routes(place: Place, route: Route, key: RouteKey) -> Iterator[Manifest]:
    yield _probe(place, route, key)
    for protocol in Protocol:
        yield from _overrides(place, route, protocol)
        yield _unit(place, route, protocol, key)
        yield from _without_unit(place, route, protocol, key)
    unknown_call = {"headers": {"content-type": {"regex": _GRPC_CONTENT}}}
    yield {
        "name": route_name(place, Protocol.GRPC, "none"),
        "match": [unknown_call],
        **_refusal(Protocol.GRPC, 404, f"no such method here: see {_GRPC_PREFIX}"),
    }
    yield {
        "name": route_name(place, Protocol.HTTP, "none"),
        **_refusal(Protocol.HTTP, 404, "no such path here: see /v2/models and /v1/models"),
    }


def _probe(place: Place, route: Route, key: RouteKey) -> Manifest:
    match = {
        "uri": {"exact": PROBE_PATH},
        "headers": {PROBE_HEADER: {"exact": probe_value(route, key)}},
    }
    return {
        "name": route_name(place, Protocol.HTTP, Split.PROBE),
        "match": [match],
        "route": [
            {
                "destination": _target(place, Protocol.HTTP, route.control.revision),
                "weight": piece.width,
                "headers": {
                    "request": {"remove": _removed(route)},
                    "response": {"set": {PROBE_ARM_HEADER: _value(piece.arm)}},
                },
            }
            for piece in PROBE_LAYOUT.slices
        ],
        **_patience(route),
    }


def _overrides(place: Place, route: Route, protocol: Protocol) -> Iterator[Manifest]:
    header = route.reach.override_header
    for variant, revision in route.overrides:
        named = {
            "name": route_name(place, protocol, f"override.{variant}"),
            "match": [_match(protocol, {header: {"exact": variant}})],
        }
        if revision is None:
            yield {**named, **_refusal(protocol, 503, f"variant {variant} is not ready")}
        else:
            alone = _entries(place, route, protocol, [Destination(variant, revision, BUCKETS)])
            yield {**named, "route": alone, **_patience(route)}
    known = ", ".join(variant for variant, _ in route.overrides)
    yield {
        "name": route_name(place, protocol, "override.unknown"),
        "match": [_match(protocol, {header: {}})],
        **_refusal(protocol, 400, f"header {header} names no variant; variants are {known}"),
    }


def _unit(place: Place, route: Route, protocol: Protocol, key: RouteKey) -> Manifest:
    header = route.reach.unit.header
    signer = _Signer(route, key, f"{HEADER_SOURCE}{header}")
    return {
        "name": route_name(place, protocol, Split.UNIT),
        "match": [_match(protocol, {header: {"regex": UNIT_PATTERN}})],
        "route": _hashed(_entries(place, route, protocol, route.split, signer=signer)),
        **_conduct(place, route, protocol),
    }


def _without_unit(place: Place, route: Route, protocol: Protocol, key: RouteKey) -> Iterator[Manifest]:
    """Yield what becomes of the others: with a cookie, browsers; a header that is no unit is a missing one."""
    cookie = route.reach.unit.cookie
    if cookie is None or protocol is Protocol.GRPC:
        yield _missing(place, route, protocol, _match(protocol))
        return
    yield _missing(place, route, protocol, _match(protocol, {route.reach.unit.header: {}}))
    known = _Signer(route, key, f"{COOKIE_SOURCE}{cookie.name}")
    yield {
        "name": route_name(place, protocol, Split.COOKIE),
        "match": [_match(protocol, {"cookie": {"regex": cookie_pattern(cookie.name)}})],
        "route": _hashed(_entries(place, route, protocol, route.split, signer=known)),
        **_conduct(place, route, protocol),
    }
    # The gateway's request id becomes the unit, so the server can check this first answer too.
    fresh = _Signer(route, key, f"{HEADER_SOURCE}{REQUEST_ID_HEADER}")
    minted = (
        f"{cookie.name}=%REQ({REQUEST_ID_HEADER})%; Path=/; Max-Age={seconds(cookie.ttl):.0f}; HttpOnly; SameSite=Lax"
    )
    yield {
        "name": route_name(place, protocol, Split.NEW),
        "match": [_match(protocol)],
        "route": _hashed(_entries(place, route, protocol, route.split, signer=fresh, cookie=minted)),
        **_conduct(place, route, protocol),
    }


def _missing(place: Place, route: Route, protocol: Protocol, match: Manifest) -> Manifest:
    named = {"name": route_name(place, protocol, "missing"), "match": [match]}
    header, policy = route.reach.unit.header, route.reach.on_missing_unit
    if policy == "Reject":
        message = f"header {header} is required: one unit of 1 to 256 bytes without a comma"
        return {**named, **_refusal(protocol, 400, message)}
    alone = [Destination(route.control.variant, route.control.revision, BUCKETS)]
    split = route.split if policy == "Random" else alone
    return {**named, "route": _entries(place, route, protocol, split), **_conduct(place, route, protocol)}


class _Signer:
    """Makes the experiment's headers of destinations whose unit comes from one source."""

    def __init__(self, route: Route, key: RouteKey, source: str) -> None:
        self._observed = route.observation
        self._key = key
        self._source = source

    def headers(self, destination: Destination) -> dict[str, str]:
        """Return the headers for ``destination``; none while nothing is observed.

        The unit is named again for the gateway's log, where it is a whole header; of a cookie Envoy cannot say it.
        """
        if self._observed is None:
            return {}
        signed = ExperimentRoute(
            salt=self._observed.salt,
            phase=self._observed.phase,
            revision=destination.revision,
            variant=self._observed.arm(destination),
            layout=self._observed.layout,
            unit_source=self._source,
        ).sign(self._key)
        header = self._source.removeprefix(HEADER_SOURCE)
        copied = {UNIT_COPY: f"%REQ({header})%"} if header != self._source else {}
        return {EXPERIMENT_HEADER: _value(signed), **copied}


def _entries(
    place: Place,
    route: Route,
    protocol: Protocol,
    split: Iterable[Destination],
    *,
    signer: _Signer | None = None,
    cookie: str | None = None,
) -> list[Manifest]:
    """Return the weighted destinations, in order, zero widths too: order and sum never change during an experiment."""
    return [
        {
            "destination": _target(place, protocol, destination.revision),
            "weight": destination.width_bp,
            "headers": {
                "request": {
                    "remove": _removed(route),
                    "set": {
                        VARIANT_HEADER: _value(destination.variant),
                        **(signer.headers(destination) if signer else {}),
                    },
                },
                "response": {
                    "remove": [EXPERIMENT_HEADER],
                    "set": {VARIANT_HEADER: _value(destination.variant)},
                    **({"add": {"set-cookie": cookie}} if cookie else {}),
                },
            },
        }
        for destination in split
    ]


def _hashed(entries: list[Manifest]) -> list[Manifest]:
    """Return at least two entries: see ``hashed`` for what one alone would do."""
    return entries if len(entries) > 1 else [*entries, {**entries[0], "weight": 0}]


def _match(protocol: Protocol, headers: Mapping[str, Manifest] | None = None) -> Manifest:
    if protocol is Protocol.GRPC:
        content = {"content-type": {"regex": _GRPC_CONTENT}}
        return {"uri": {"prefix": _GRPC_PREFIX}, "headers": {**content, **(headers or {})}}
    return {"uri": {"regex": _REST_PATHS}, **({"headers": dict(headers)} if headers else {})}


def _conduct(place: Place, route: Route, protocol: Protocol) -> Manifest:
    """Return what users' routes have besides destinations; a tester's has neither copies nor faults."""
    mirrors = [
        {
            "destination": _target(place, protocol, shadow),
            "percentage": {"value": route.reach.mirror_percent},
        }
        for shadow in route.shadows
        if route.reach.mirror_percent
    ]
    fault = _fault(route)
    return {
        **_patience(route),
        **({"mirrors": mirrors} if mirrors else {}),
        **({"fault": fault} if fault else {}),
    }


def _patience(route: Route) -> Manifest:
    attempts = route.reach.retry_attempts
    return {
        "timeout": duration(route.reach.timeout_s),
        "retries": {"attempts": attempts, **({"retryOn": _RETRY_ON} if attempts else {})},
    }


def _fault(route: Route) -> Manifest:
    fault = route.reach.fault
    made: Manifest = {}
    if fault and fault.delay:
        made["delay"] = {
            "percentage": {"value": fault.delay.percent},
            "fixedDelay": duration(seconds(fault.delay.duration)),
        }
    if fault and fault.abort:
        made["abort"] = {"percentage": {"value": fault.abort.percent}, "httpStatus": fault.abort.status}
    return made


def _refusal(protocol: Protocol, status: int, message: str) -> Manifest:
    """Return what answers by itself; gRPC clients see the code that REST's status stands for."""
    if protocol is Protocol.GRPC:
        body, headers = message, {"grpc-status": _GRPC_CODES[status]}
    else:
        body, headers = json.dumps({"error": message}), {"content-type": "application/json"}
    return {
        "directResponse": {"status": status, "body": {"string": body}},
        "headers": {"response": {"set": headers}},
    }


def _target(place: Place, protocol: Protocol, revision: str) -> Manifest:
    port = SERVICE_GRPC_PORT if protocol is Protocol.GRPC else SERVICE_HTTP_PORT
    return {"host": place.host(revision), "port": {"number": port}}


def _removed(route: Route) -> list[str]:
    return sorted({EXPERIMENT_HEADER, UNIT_COPY, OVERRIDE_HEADER, PROBE_HEADER, route.reach.override_header})


def _value(text: str) -> str:
    """Return ``text`` as a header's value; a per cent sign would start one of Envoy's substitutions."""
    return text.replace("%", "%%")


def duration(duration_s: float) -> str:
    """Return a time as Istio reads it: seconds, with at most six decimals, and never below a millisecond."""
    return f"{max(duration_s, _SHORTEST_S):.6f}".rstrip("0").rstrip(".") + "s"
