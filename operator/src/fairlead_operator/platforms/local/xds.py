"""Envoy's configuration as data: bootstrap, clusters and routes, rendered from what the core decided.

Everything here is pure. Headers are set and removed on each destination, never on a route, because a route's
removals would also take what its destinations set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.route import (
    EXPERIMENT_HEADER,
    OVERRIDE_HEADER,
    UNIT_PATTERN,
    VARIANT_HEADER,
    ExperimentRoute,
    RouteKey,
)
from fairlead_operator.core.observed import Destination, Route
from fairlead_operator.platforms.unanswered import UNIT_COPY, access_log

Resource = dict[str, Any]

ROUTES = "deployment"
"""Name of the one RouteConfiguration."""

_TYPE = "type.googleapis.com/envoy"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_MAX_REQUESTS = 10_000
_UPSTREAM_IDLE = "3s"
"""Shorter than the servers' keep-alive, so that a request never meets a connection that its server is closing."""

_REST_PATHS = (
    r"/v1/models(/[^/:]+(:predict)?)?"
    r"|/v2(/health/(live|ready)|/repository/index|/models(/[^/]+(/versions/[^/]+)?(/(infer|ready))?)?)?"
)
_GRPC_PREFIX = "/inference.GRPCInferenceService/"
_RETRY_ON = "connect-failure,refused-stream,reset-before-request"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one server listens, on loopback."""

    http_port: int
    grpc_port: int


@dataclass(frozen=True, slots=True)
class _Protocol:
    name: str
    match: Resource

    def cluster(self, revision: str) -> str:
        return f"{revision}.{self.name}"


_PROTOCOLS = (
    _Protocol("grpc", {"prefix": _GRPC_PREFIX, "grpc": {}}),
    _Protocol("http", {"safe_regex": {"regex": _REST_PATHS}}),
)


def bootstrap(*, host: str, port: int, folder: Path, admin_socket: Path, unanswered: Path) -> Resource:
    """Return the configuration that Envoy starts with: one listener, routes and clusters from files in ``folder``.

    Requests of experiments that no server has answered are logged to ``unanswered``, a line of JSON each.
    """
    return {
        "node": {"id": "fairlead", "cluster": "fairlead"},
        "admin": {"address": {"pipe": {"path": str(admin_socket), "mode": 0o600}}},
        "layered_runtime": {"layers": [{"name": "fairlead", "static_layer": _RUNTIME}]},
        "dynamic_resources": {"cds_config": _file(folder / "clusters.json")},
        "static_resources": {"listeners": [_listener(host, port, folder / "routes.json", unanswered)]},
    }


_RUNTIME = {
    # The unit's pattern is bounded to 256 bytes, which makes a program longer than Envoy's default limit of 100.
    "re2.max_program_size.error_level": 2000,
    "re2.max_program_size.warn_level": 2000,
    # A header given twice is one value with a comma, so that two units are no unit; by default either would match.
    "envoy.reloadable_features.match_headers_individually": False,
}


def clusters(endpoints: Mapping[str, Endpoint]) -> list[Resource]:
    """Return the clusters of every server, by revision: one for REST, one for gRPC."""
    return [cluster for revision, endpoint in endpoints.items() for cluster in _clusters(revision, endpoint)]


def routes(route: Route | None, key: RouteKey) -> Resource:
    """Return the RouteConfiguration for ``route``; None answers 503 to everyone."""
    entries = list(_routes(route, key)) if route else [_refusal({"prefix": "/"}, 503, "no variant is ready yet")]
    return {
        "@type": f"{_TYPE}.config.route.v3.RouteConfiguration",
        "name": ROUTES,
        "virtual_hosts": [{"name": ROUTES, "domains": ["*"], "routes": entries}],
    }


def _routes(route: Route, key: RouteKey) -> Iterator[Resource]:
    for protocol in _PROTOCOLS:
        yield from _override_routes(route, protocol)
        yield _unit_route(route, protocol, key)
        yield _missing_unit_route(route, protocol)
    yield _refusal({"prefix": "/"}, 404, "no such path here: see /v2/models and /v1/models")


def _override_routes(route: Route, protocol: _Protocol) -> Iterator[Resource]:
    header = route.reach.override_header
    for variant, revision in route.overrides:
        match = _match(protocol, {"name": header, "string_match": {"exact": variant}})
        if revision is None:
            yield _refusal(match, 503, f"variant {variant} is not ready")
        else:
            split = [Destination(variant, revision, 10_000)]
            yield {"match": match, "route": _action(route, protocol, _entries(route, protocol, split), mirror=False)}
    known = ", ".join(variant for variant, _ in route.overrides)
    unknown = _match(protocol, {"name": header, "present_match": True})
    yield _refusal(unknown, 400, f"header {header} names no variant; variants are {known}")


def _unit_route(route: Route, protocol: _Protocol, key: RouteKey) -> Resource:
    header = route.reach.unit_header
    rewrite = {"pattern": {"regex": "^"}, "substitution": f"{route.salt}:"}
    return {
        "match": _match(protocol, {"name": header, "string_match": {"safe_regex": {"regex": UNIT_PATTERN}}}),
        "route": {
            **_action(route, protocol, _entries(route, protocol, route.split, key), sticky=True),
            "hash_policy": [{"header": {"header_name": header, "regex_rewrite": rewrite}}],
        },
    }


def _missing_unit_route(route: Route, protocol: _Protocol) -> Resource:
    match = _match(protocol)
    header = route.reach.unit_header
    if route.reach.on_missing_unit == "Reject":
        return _refusal(match, 400, f"header {header} is required: one unit of 1 to 256 bytes without a comma")
    alone = [Destination(route.control.variant, route.control.revision, 10_000)]
    split = route.split if route.reach.on_missing_unit == "Random" else alone
    return {"match": match, "route": _action(route, protocol, _entries(route, protocol, split))}


def _match(protocol: _Protocol, *headers: Resource) -> Resource:
    return {**protocol.match, "headers": list(headers)} if headers else dict(protocol.match)


def _action(
    route: Route, protocol: _Protocol, entries: list[Resource], *, sticky: bool = False, mirror: bool = True
) -> Resource:
    weighted: Resource = {"clusters": entries}
    if sticky:
        weighted["use_hash_policy"] = True
    action: Resource = {
        "weighted_clusters": weighted,
        "timeout": _duration(route.reach.timeout_s),
        "retry_policy": {"retry_on": _RETRY_ON, "num_retries": route.reach.retry_attempts},
    }
    if mirror and route.shadows:
        action["request_mirror_policies"] = [
            {
                "cluster": protocol.cluster(shadow),
                "disable_shadow_host_suffix_append": True,
                "runtime_fraction": _fraction(route.reach.mirror_percent),
            }
            for shadow in route.shadows
        ]
    return action


def _fraction(per_cent: float) -> Resource:
    return {"default_value": {"numerator": round(per_cent * 10_000), "denominator": "MILLION"}}


def _entries(
    route: Route, protocol: _Protocol, split: tuple[Destination, ...] | list[Destination], key: RouteKey | None = None
) -> list[Resource]:
    """Return the weighted clusters; with ``key``, signed for the experiment that is being observed."""
    return [
        {
            "name": protocol.cluster(destination.revision),
            "weight": destination.width_bp,
            "request_headers_to_remove": [
                *(EXPERIMENT_HEADER, UNIT_COPY),
                *sorted({OVERRIDE_HEADER, route.reach.override_header}),
            ],
            "request_headers_to_add": [
                _set(VARIANT_HEADER, destination.variant),
                *_experiment(route, destination, key),
            ],
            "response_headers_to_remove": [EXPERIMENT_HEADER],
            "response_headers_to_add": [_set(VARIANT_HEADER, destination.variant)],
        }
        for destination in split
    ]


def _experiment(route: Route, destination: Destination, key: RouteKey | None) -> list[Resource]:
    observed = route.observation
    if key is None or observed is None:
        return []
    signed = ExperimentRoute(
        salt=observed.salt,
        phase=observed.phase,
        revision=destination.revision,
        variant=observed.arm(destination),
        layout=observed.layout,
        unit_source=route.reach.unit.source,
    ).sign(key)
    return [_set(EXPERIMENT_HEADER, signed), _copy(UNIT_COPY, route.reach.unit_header)]


def _set(name: str, value: str) -> Resource:
    # A per cent sign would start one of Envoy's substitutions.
    return {"header": {"key": name, "value": value.replace("%", "%%")}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _copy(name: str, of: str) -> Resource:
    return {"header": {"key": name, "value": f"%REQ({of})%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _refusal(match: Resource, status: int, message: str) -> Resource:
    """Return a route that answers itself. gRPC clients see the code that REST's status stands for."""
    code = {400: "3", 404: "12", 503: "14"}[status]
    return {
        "match": match,
        "direct_response": {"status": status, "body": {"inline_string": message}},
        **({"response_headers_to_add": [_set("grpc-status", code)]} if "grpc" in match else {}),
    }


def _clusters(revision: str, endpoint: Endpoint) -> Iterator[Resource]:
    for protocol in _PROTOCOLS:
        name = protocol.cluster(revision)
        port = endpoint.grpc_port if protocol.name == "grpc" else endpoint.http_port
        explicit: Resource = (
            {"http2_protocol_options": {}} if protocol.name == "grpc" else {"http_protocol_options": {}}
        )
        limits = {"max_connections": _MAX_REQUESTS, "max_pending_requests": _MAX_REQUESTS}
        yield {
            "@type": f"{_TYPE}.config.cluster.v3.Cluster",
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address("127.0.0.1", port)}}]}],
            },
            "circuit_breakers": {
                "thresholds": [{**limits, "max_requests": _MAX_REQUESTS, "max_retries": _MAX_REQUESTS}]
            },
            "typed_extension_protocol_options": {
                _HTTP_OPTIONS: {
                    "@type": f"type.googleapis.com/{_HTTP_OPTIONS}",
                    "common_http_protocol_options": {"idle_timeout": _UPSTREAM_IDLE},
                    "explicit_http_config": explicit,
                }
            },
        }


def _listener(host: str, port: int, routes_file: Path, unanswered: Path) -> Resource:
    manager = {
        "@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "codec_type": "AUTO",
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
        "common_http_protocol_options": {"idle_timeout": "300s"},
        "request_headers_timeout": "10s",
        "local_reply_config": _LOCAL_REPLIES,
        "access_log": [access_log(str(unanswered))],
        "rds": {"route_config_name": ROUTES, "config_source": _file(routes_file)},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": f"{_TYPE}.extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            }
        ],
    }
    return {
        "name": "gateway",
        "address": _address(host, port),
        "enable_reuse_port": False,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


_LOCAL_REPLIES = {
    "mappers": [
        {
            "filter": {
                "header_filter": {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}
            },
            "body_format_override": {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}},
        }
    ],
    "body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}},
}


def _file(path: Path) -> Resource:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def _address(host: str, port: int) -> Resource:
    return {"socket_address": {"address": host, "port_value": port}}


def _duration(duration_s: float) -> str:
    return f"{re.sub(r'[.]?0+$', '', f'{duration_s:.6f}')}s"
