"""Feast's Redis store under another name: read through its ``online_read_async``, as any asynchronous store is."""

from __future__ import annotations

from typing import Literal

from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig

TYPE = "support.awaited_redis.AwaitedRedisOnlineStore"


class AwaitedRedisOnlineStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc]  # feast is untyped here
    type: Literal["support.awaited_redis.AwaitedRedisOnlineStore"] = "support.awaited_redis.AwaitedRedisOnlineStore"


class AwaitedRedisOnlineStore(RedisOnlineStore):  # type: ignore[misc]  # feast is untyped here
    pass
