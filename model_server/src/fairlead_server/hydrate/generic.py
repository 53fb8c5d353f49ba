"""Asks any Feast online store through ``online_read``, without blocking the event loop.

Stores that declare asynchronous reads are awaited, all others are read in one thread, one read at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from feast import FeatureStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey

from fairlead_server.hydrate.found import Found, Heard, Key, Lookup, ViewRead
from fairlead_server.hydrate.plan import ViewPlan
from fairlead_server.hydrate.source import Table
from fairlead_server.hydrate.states import StoredRow, columns_of
from fairlead_server.hydrate.thread import WorkerThread

_LOG = logging.getLogger(__name__)
_GIVE_UP_AFTER = 2
"""Deadlines after which a read that nobody waits for any more is given up."""
_NO_ENTITY: Key = ("",)
_KEYS_PER_CALL = 10_000
"""SQLite takes 32,766 variables in one statement."""
_KEYS_PER_TURN = 256
"""After so many keys of a large request the event loop serves others."""


class GenericBackEnd:
    """Any online store of Feast's."""

    name = "generic"
    reads_at_once = 1

    def __init__(
        self,
        store: FeatureStore,
        views: Sequence[ViewPlan],
        tables: Mapping[str, Table],
        *,
        thread: WorkerThread,
        deadline_s: float,
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Make the back end; nothing is read yet.

        Args:
            store: The opened feature store.
            views: What may be looked up.
            tables: The store's side of ``views``, by name.
            thread: Where a store without asynchronous reads is read; only by back ends of this store.
            deadline_s: Longest wait of one request, seconds.
            close: Lets go of the store's connections; None to close them.
        """
        self._config = store.config
        self._online_store = store.provider.online_store
        self._is_async = bool(self._online_store.async_supported.read)
        self._views = views
        self._tables = tables
        self._names = {view.name: [feature.name for feature in view.features] for view in views}
        self._thread = thread
        self._deadline_s = deadline_s
        self._close = close or self._online_store.close
        self.probe: Lookup = {view.join_keys: [tables[view.name].probe] for view in views}

    async def connect(self) -> None:
        """Nothing is made in advance: the store connects when it is read."""

    def start(self, lookup: Lookup, heard: Heard) -> bool:
        """Return False: Feast's calls are awaited."""
        del lookup, heard
        return False

    async def read(self, lookup: Lookup) -> Found:
        """Look up keys; a view that fails is None."""
        if not self._is_async:
            rows = await self._thread.submit(lambda: [self._read_view(view, lookup) for view in self._views])
        else:
            rows = await asyncio.gather(*(self._read_view_async(view, lookup) for view in self._views))
        found: dict[str, ViewRead | None] = {}
        for view, of_view in zip(self._views, rows, strict=True):
            found[view.name] = None if of_view is None else columns_of(view.features, of_view)
            if of_view is not None and len(of_view) > _KEYS_PER_TURN:
                await asyncio.sleep(0)
        return found

    async def close(self) -> None:
        """Let go of the store's connections."""
        await self._close()

    def _read_view(self, view: ViewPlan, lookup: Lookup) -> list[StoredRow] | None:
        table = self._tables[view.name]
        rows: list[StoredRow] = []
        try:
            for some in _in_parts(_entity_keys(table, lookup[view.join_keys])):
                # The list of names is a copy: Redis' store appends to it.
                rows += self._online_store.online_read(self._config, table.view, some, list(self._names[view.name]))
        except Exception as error:  # noqa: BLE001 -- whatever a store raises is a STORE_ERROR; it is counted
            _log_failure(view, error)
            return None
        return rows

    async def _read_view_async(self, view: ViewPlan, lookup: Lookup) -> list[StoredRow] | None:
        table = self._tables[view.name]
        rows: list[StoredRow] = []
        try:
            async with asyncio.timeout(_GIVE_UP_AFTER * self._deadline_s):
                for some in _in_parts(_entity_keys(table, lookup[view.join_keys])):
                    names = list(self._names[view.name])
                    rows += await self._online_store.online_read_async(self._config, table.view, some, names)
        except Exception as error:  # noqa: BLE001 -- whatever a store raises is a STORE_ERROR; it is counted
            _log_failure(view, error)
            return None
        return rows


def _entity_keys(table: Table, keys: Sequence[Key]) -> list[EntityKey]:
    return [
        EntityKey(
            join_keys=table.join_keys,
            entity_values=[write(part) for write, part in zip(table.key_values, key or _NO_ENTITY, strict=True)],
        )
        for key in keys
    ]


def _in_parts(keys: list[EntityKey]) -> list[list[EntityKey]]:
    return [keys[i : i + _KEYS_PER_CALL] for i in range(0, len(keys), _KEYS_PER_CALL)]


def _log_failure(view: ViewPlan, error: Exception) -> None:
    _LOG.info("online store read failed view=%s error=%s", view.name, type(error).__name__)
