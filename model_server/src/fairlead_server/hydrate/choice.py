"""Chooses how a feature store's online store is asked: Redis directly, any other through Feast."""

from __future__ import annotations

import importlib
import logging
from typing import Any, Final

from feast import FeatureStore

from fairlead_server.hydrate.generic import GenericBackEnd
from fairlead_server.hydrate.plan import HydrationPlan
from fairlead_server.hydrate.reader import BackEnd
from fairlead_server.hydrate.shared import Lease, Shared
from fairlead_server.hydrate.source import Source
from fairlead_server.hydrate.thread import WorkerThread

_LOG = logging.getLogger(__name__)
_REDIS: Final = "feast.infra.online_stores.redis.RedisOnlineStore"
_KEY_VERSION: Final = 3


def why_through_feast(store: FeatureStore) -> str | None:
    """Return why an online store is asked through Feast; None for one that is asked directly."""
    kind = type(store.provider.online_store)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name != _REDIS:
        return f"the online store is {kind.__qualname__}"
    version = store.config.entity_key_serialization_version
    return None if version == _KEY_VERSION else f"entity_key_serialization_version is {version}"


def back_end_of(
    store: FeatureStore,
    plan: HydrationPlan,
    source: Source,
    thread: WorkerThread,
    deadline_s: float,
    *,
    shared: Shared | None = None,
) -> BackEnd:
    """Return the way to ask an opened store.

    Args:
        store: The opened feature store.
        plan: What may be looked up.
        source: The store's side of it.
        thread: Where a store without asynchronous reads is read.
        deadline_s: Longest wait of one request, seconds.
        shared: What models of the process hold together, connections to Redis among it; None for connections alone.
    """
    shared = Shared() if shared is None else shared
    reason = why_through_feast(store)
    if reason is None:
        return _of_redis(store, plan, source, deadline_s, shared)
    _LOG.info("features are read through feast reason=%s", reason)
    online_store = store.provider.online_store
    lease = shared.take(id(online_store), lambda: online_store, lambda opened: opened.close())
    return GenericBackEnd(store, plan.views, source.tables, thread=thread, deadline_s=deadline_s, close=lease.close)


class _LeasedClient:
    """A client that others may hold, too."""

    __slots__ = ("_lease", "ask", "connect", "start")

    def __init__(self, lease: Lease[Any]) -> None:
        self._lease = lease
        self.ask = lease.what.ask
        self.start = lease.what.start
        self.connect = lease.what.connect

    async def close(self) -> None:
        """Give it back."""
        await self._lease.close()


def _of_redis(store: FeatureStore, plan: HydrationPlan, source: Source, deadline_s: float, shared: Shared) -> BackEnd:
    redis: Any = importlib.import_module("fairlead_server.hydrate.redis")  # only those who have it pay for it
    clients: Any = importlib.import_module("fairlead_server.hydrate.redis_client")
    config = store.config.online_store
    lease: Lease[Any] = shared.take(
        (_REDIS, config.model_dump_json(), deadline_s),
        lambda: clients.open_client(config, deadline_s),
        lambda client: client.close(),
    )
    of_redis: BackEnd = redis.RedisBackEnd(
        store, plan.views, source.tables, client=_LeasedClient(lease), deadline_s=deadline_s
    )
    return of_redis
