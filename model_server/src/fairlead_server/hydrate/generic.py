"""Reads any Feast online store through ``online_read``, within a deadline, without blocking the event loop.

Requests that arrive while a read is under way wait and are read together, each view and key once; so there is
one read at a time. Stores that declare asynchronous reads are awaited, all others are read in one thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from feast import FeatureStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey

from fairlead_server.hydrate.plan import ViewPlan
from fairlead_server.hydrate.policy import Key
from fairlead_server.hydrate.source import Table
from fairlead_server.hydrate.states import StoredRow
from fairlead_server.hydrate.thread import WorkerThread
from fairlead_server.metrics import ModelMetrics, ReadOutcome

_LOG = logging.getLogger(__name__)
_GRACE_TURNS = 8
"""Turns of the event loop (microseconds each) between an answer's arrival and the waiting request."""
_GIVE_UP_AFTER = 2
"""Deadlines after which a read that nobody waits for any more is given up."""
_NO_ENTITY: Key = ("",)
_KEYS_PER_CALL = 10_000
"""SQLite takes 32,766 variables in one statement."""

Lookup = Mapping[str, Sequence[Key]]
"""Distinct keys by view."""
Rows = Mapping[str, Mapping[Key, StoredRow] | None]
"""What the store has for them; None where a view could not be read."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    lookup: Lookup
    future: asyncio.Future[Rows | None]


class GenericReader:
    """The one reader of a feature store's online store."""

    def __init__(
        self,
        store: FeatureStore,
        views: Sequence[ViewPlan],
        tables: Mapping[str, Table],
        *,
        thread: WorkerThread,
        deadline_s: float,
        metrics: ModelMetrics,
        waiting_limit: int = 1024,
    ) -> None:
        """Make the reader; nothing is read yet.

        Args:
            store: The opened feature store.
            views: What may be looked up.
            tables: The store's side of ``views``, by name.
            thread: Where a store without asynchronous reads is read; only by this reader.
            deadline_s: Longest wait of one request, seconds.
            metrics: Where reads are counted.
            waiting_limit: Requests that may wait for a read; those beyond it are told STORE_ERROR at once.
        """
        self._config = store.config
        self._online_store = store.provider.online_store
        self._is_async = bool(self._online_store.async_supported.read)
        self._names = {view.name: [feature.name for feature in view.features] for view in views}
        self._tables = {view.name: tables[view.name] for view in views}
        self._thread = thread
        self._deadline_s = deadline_s
        self._metrics = metrics
        self._waiting_limit = waiting_limit
        self._waiting: list[_Waiting] = []
        self._reading: asyncio.Task[None] | None = None
        self._failing = False

    @property
    def failing(self) -> bool:
        """Whether the last read failed or was not answered within the deadline."""
        return self._failing

    async def answers(self) -> bool:
        """Whether every view can be read now, asked with one key each."""
        rows = await self.read({view: [table.probe] for view, table in self._tables.items()})
        return rows is not None and all(found is not None for found in rows.values())

    async def close(self) -> None:
        """Let go of the store's connections."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        await self._online_store.close()

    async def read(self, lookup: Lookup) -> Rows | None:
        """Look up keys; None if the store failed or did not answer within the deadline."""
        if (self._failing and self._reading) or len(self._waiting) >= self._waiting_limit:
            self._metrics.count_read(ReadOutcome.REFUSED)
            return None
        loop = asyncio.get_running_loop()
        waiting = _Waiting(lookup, loop.create_future())
        self._waiting.append(waiting)
        timer = loop.call_later(self._deadline_s, self._expire, waiting.future)
        if self._reading is None:
            self._reading = loop.create_task(self._read_waiting())
        try:
            rows = await waiting.future
        finally:
            timer.cancel()
        return rows

    def _expire(self, future: asyncio.Future[Rows | None], turns: int = _GRACE_TURNS) -> None:
        """Give up waiting, unless the answer is there and only the event loop was late to hand it on."""
        if future.done():
            return
        if turns:
            asyncio.get_running_loop().call_soon(self._expire, future, turns - 1)
            return
        self._note(failing=True)
        self._metrics.count_read(ReadOutcome.TIMEOUT)
        future.set_result(None)

    def _note(self, *, failing: bool) -> None:
        if failing is not self._failing:
            self._failing = failing
            _LOG.warning("online store %s", "does not answer" if failing else "answers again")

    async def _read_waiting(self) -> None:
        try:
            while batch := [waiting for waiting in self._waiting if not waiting.future.done()]:
                self._waiting.clear()
                self._settle(batch, await self._read_together(batch))
        finally:
            self._waiting.clear()
            self._reading = None

    async def _read_together(self, batch: Sequence[_Waiting]) -> Rows:
        lookup = batch[0].lookup if len(batch) == 1 else _merge([waiting.lookup for waiting in batch])
        if not self._is_async:
            return await self._thread.submit(lambda: self._read_views(lookup))
        found = await asyncio.gather(*(self._read_view_async(view, keys) for view, keys in lookup.items()))
        return dict(zip(lookup, found, strict=True))

    def _settle(self, batch: Sequence[_Waiting], rows: Rows) -> None:
        failed = any(found is None for found in rows.values())
        self._note(failing=failed)
        for waiting in batch:
            if not waiting.future.done():
                self._metrics.count_read(ReadOutcome.ERROR if failed else ReadOutcome.OK)
                waiting.future.set_result(rows)

    def _read_views(self, lookup: Lookup) -> Rows:
        return {view: self._read_view(view, keys) for view, keys in lookup.items()}

    def _read_view(self, view: str, keys: Sequence[Key]) -> Mapping[Key, StoredRow] | None:
        table = self._tables[view]
        rows: list[StoredRow] = []
        try:
            for some in _in_parts(_entity_keys(table, keys)):
                # The list of names is a copy: Redis' store appends to it.
                rows += self._online_store.online_read(self._config, table.view, some, list(self._names[view]))
            return dict(zip(keys, rows, strict=True))
        except Exception as error:  # noqa: BLE001 -- whatever a store raises is a STORE_ERROR; it is counted
            _log_failure(view, error)
            return None

    async def _read_view_async(self, view: str, keys: Sequence[Key]) -> Mapping[Key, StoredRow] | None:
        table = self._tables[view]
        rows: list[StoredRow] = []
        try:
            async with asyncio.timeout(_GIVE_UP_AFTER * self._deadline_s):
                for some in _in_parts(_entity_keys(table, keys)):
                    names = list(self._names[view])
                    rows += await self._online_store.online_read_async(self._config, table.view, some, names)
            return dict(zip(keys, rows, strict=True))
        except Exception as error:  # noqa: BLE001 -- whatever a store raises is a STORE_ERROR; it is counted
            _log_failure(view, error)
            return None


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


def _merge(lookups: Sequence[Lookup]) -> Lookup:
    together: dict[str, dict[Key, None]] = {}
    for lookup in lookups:
        for view, keys in lookup.items():
            together.setdefault(view, {}).update(dict.fromkeys(keys))
    return {view: list(keys) for view, keys in together.items()}


def _log_failure(view: str, error: Exception) -> None:
    _LOG.info("online store read failed view=%s error=%s", view, type(error).__name__)
