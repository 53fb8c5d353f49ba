"""Feast's Redis store without its asynchronous reads: how any store behaves whose client blocks."""

from __future__ import annotations

from typing import Literal

from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.infra.supported_async_methods import SupportedAsyncMethods

TYPE = "support.blocking_redis.BlockingRedisOnlineStore"


class BlockingRedisOnlineStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc]  # feast is untyped here
    type: Literal["support.blocking_redis.BlockingRedisOnlineStore"] = "support.blocking_redis.BlockingRedisOnlineStore"


class BlockingRedisOnlineStore(RedisOnlineStore):  # type: ignore[misc]  # feast is untyped here
    @property
    def async_supported(self) -> SupportedAsyncMethods:
        return SupportedAsyncMethods()
