"""Connections to Redis as Feast's configuration names it: one server, a master behind Sentinel, or a Cluster.

All are redis-py's own asyncio clients. To one server (or a master) a request goes out in one write and its replies
are read one after the other, on a connection that is kept for the next; a Cluster is asked through its pipeline,
which knows where each key lives and follows it when it moves. Nothing is retried but a read on a connection that
turned out to be closed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from redis import asyncio as redis_asyncio
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

_REPLIES_PER_TURN = 256
"""After so many replies the event loop serves others."""

Replies = list[Any]
"""By command: values of the fields, or the ``ResponseError`` that the server gave."""


@dataclass(frozen=True, slots=True)
class Command:
    """Asks for fields of one hash."""

    key: bytes
    fields: Sequence[bytes]
    packed: bytes
    """The command as it goes over the wire; see :func:`pack`."""


class RedisClient(Protocol):
    """Whatever hashes are asked of."""

    async def ask(self, commands: Sequence[Command]) -> Replies:
        """Ask for hashes; raises what redis-py raises, if none can be had."""

    async def close(self) -> None:
        """Close all connections."""


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


def open_client(config: Any, connect_timeout_s: float) -> RedisClient:
    """Return a client for Feast's ``RedisOnlineStoreConfig``; it connects when it is first asked.

    Args:
        config: The block ``online_store``.
        connect_timeout_s: Longest wait for a connection, seconds.
    """
    servers, settings = parse(config.connection_string)
    # What waits too long is given up by whoever asks, so nothing here has a timeout or a retry of its own.
    settings |= {"socket_timeout": None, "socket_connect_timeout": connect_timeout_s, "decode_responses": False}
    settings["retry"] = Retry(NoBackoff(), 0)
    match config.redis_type.value:
        case "redis_cluster":
            settings["retry"] = Retry(NoBackoff(), 1)  # with which it learns where a key has moved to
            nodes = [ClusterNode(host, port) for host, port in servers]
            return ClusterClient(redis_asyncio.RedisCluster(startup_nodes=nodes, **settings))
        case "redis_sentinel":
            of_sentinel = {"socket_connect_timeout": connect_timeout_s, "socket_timeout": connect_timeout_s}
            of_sentinel["retry"] = settings["retry"]
            sentinel: Any = redis_asyncio.Sentinel(  # type: ignore[no-untyped-call]  # its constructor has no types
                servers, sentinel_kwargs=of_sentinel, **settings
            )
            return SingleClient(sentinel.master_for(config.sentinel_master))
        case _:
            host, port = servers[0]
            return SingleClient(redis_asyncio.Redis(host=host, port=port, **settings))


def pack(fields: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return what goes before the key's length and after the key in an ``HMGET`` of these fields."""
    tail = b"".join(b"\r\n$%d\r\n%b" % (len(field), field) for field in fields)
    return b"*%d\r\n$5\r\nHMGET\r\n$" % (len(fields) + 2), tail + b"\r\n"


class SingleClient:
    """One server, or the master behind Sentinel."""

    def __init__(self, redis: Any) -> None:
        """Use the connections of a ``redis.asyncio.Redis``."""
        self._redis = redis
        self._pool = redis.connection_pool
        self._idle: list[Any] = []

    async def ask(self, commands: Sequence[Command]) -> Replies:
        """Ask for hashes, all in one write.

        Raises:
            RedisError: The server cannot be asked.
            OSError: The same.
        """
        payload = b"".join([command.packed for command in commands])
        if self._idle:
            try:
                return await self._ask(self._idle.pop(), payload, len(commands))
            except RedisConnectionError:
                pass  # it was closed while nobody asked; the next one is new
        return await self._ask(await self._pool.get_connection(), payload, len(commands))

    async def _ask(self, connection: Any, payload: bytes, amount: int) -> Replies:
        replies: Replies = []
        try:
            await connection.send_packed_command(payload)
            for i in range(amount):
                try:
                    replies.append(await connection.read_response())
                except ResponseError as error:
                    replies.append(error)
                if i % _REPLIES_PER_TURN == _REPLIES_PER_TURN - 1:
                    await asyncio.sleep(0)
        except BaseException:
            # Replies that are still to come must not be taken for those of another request.
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)
            raise
        self._idle.append(connection)
        return replies

    async def close(self) -> None:
        """Close all connections."""
        for connection in self._idle:
            await self._pool.release(connection)
        self._idle.clear()
        await self._redis.aclose()


class ClusterClient:
    """A Redis Cluster."""

    def __init__(self, redis: Any) -> None:
        """Use a ``redis.asyncio.RedisCluster``."""
        self._redis = redis

    async def ask(self, commands: Sequence[Command]) -> Replies:
        """Ask for hashes, all at once, each of the node that has it.

        Raises:
            RedisError: The cluster cannot be asked.
            OSError: The same.
        """
        pipeline = self._redis.pipeline()
        for command in commands:
            pipeline.execute_command("HMGET", command.key, *command.fields)
        replies: Replies = await pipeline.execute(raise_on_error=False)
        return replies

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()
