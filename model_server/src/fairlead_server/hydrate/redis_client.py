"""Makes a client for Redis as Feast's configuration names it: one server, a master behind Sentinel, or a Cluster."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from redis import asyncio as redis_asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from fairlead_server.hydrate.redis_cluster import ClusterClient
from fairlead_server.hydrate.redis_single import RedisClient, SingleClient

_LEAST_CONNECT_S = 0.5
_DEADLINES_TO_CONNECT = 2
_OF_CLUSTERS = {
    "cluster_error_retry_attempts",
    "db",
    "dynamic_startup_nodes",
    "load_balancing_strategy",
    "max_connections",
    "read_from_replicas",
    "reinitialize_steps",
    "require_full_coverage",
    "skip_full_coverage_check",
}
"""Settings of redis-py's cluster client, which its connections do not know."""


def parse(connection_string: str) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """Return servers and redis-py's settings of a connection string, read as Feast reads it.

    Parts are separated by commas; those with ``=`` are settings, whose values are JSON if they can be.
    """
    servers: list[tuple[str, int]] = []
    settings: dict[str, Any] = {}
    for part in connection_string.split(","):
        name, equals, value = part.partition("=")
        if not equals:
            host, _, port = part.partition(":")
            servers.append((host, int(port)))
            continue
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return servers, settings


def open_client(config: Any, deadline_s: float) -> RedisClient:
    """Return a client for Feast's ``RedisOnlineStoreConfig``; it connects when it is first asked.

    Args:
        config: The block ``online_store``.
        deadline_s: Longest wait of a request, seconds; a connection may take longer.
    """
    servers, settings = parse(config.connection_string)
    connect_s = max(_LEAST_CONNECT_S, _DEADLINES_TO_CONNECT * deadline_s)
    # What waits too long is given up by whoever asks, so nothing here has a timeout or a retry of its own.
    settings |= {"socket_timeout": None, "socket_connect_timeout": connect_s, "decode_responses": False}
    settings["retry"] = Retry(NoBackoff(), 0)
    match config.redis_type.value:
        case "redis_cluster":
            of_node = {name: value for name, value in settings.items() if name not in _OF_CLUSTERS}
            return ClusterClient(
                servers,
                partial(_node, settings=of_node, connect_s=connect_s),
                deadline_s=deadline_s,
                connect_s=connect_s,
            )
        case "redis_sentinel":
            # Sentinels are asked in turn; all but the last may hang.
            of_sentinel = {"retry": settings["retry"]} | settings.pop("sentinel_kwargs", {})
            of_sentinel |= dict.fromkeys(("socket_connect_timeout", "socket_timeout"), connect_s / (len(servers) + 1))
            sentinel: Any = redis_asyncio.Sentinel(  # type: ignore[no-untyped-call]  # its constructor has no types
                servers, sentinel_kwargs=of_sentinel, **settings
            )
            return SingleClient(sentinel.master_for(config.sentinel_master), connect_s)
        case _:
            return _node(*servers[0], settings=settings, connect_s=connect_s)


def _node(host: str, port: int, *, settings: dict[str, Any], connect_s: float) -> SingleClient:
    return SingleClient(redis_asyncio.Redis(host=host, port=port, **settings), connect_s)
