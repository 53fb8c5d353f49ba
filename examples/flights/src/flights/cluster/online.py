"""The online side of the store, written by several programs: one at a time, and never back in time.

Feast's Redis store compares a row's time with what is stored and writes then: of two writers at once the older could
come last. So whoever writes holds a lock in Redis, and notes there up to when everything is written. A store that was
emptied has lost the note, too, and is filled anew.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from feast.infra.online_stores.redis import RedisOnlineStore
from redis.exceptions import LockError, RedisError

from fairlead.features.sqlite import OnlineRow
from flights.cluster.shift import stretches
from flights.errors import FlightsError
from flights.publish import PublishedView

if TYPE_CHECKING:
    from feast import FeatureStore

_LOG = logging.getLogger(__name__)

LOCK = "{flights}:writer"
NOTE = "{flights}:published"
"""Key in Redis: up to when everything is written, microseconds since 1970-01-01 UTC."""
LOCK_S = 15.0
"""A writer that died is waited for this long."""
BATCH = 500
"""Rows written before the lock is renewed; they take a tenth of a second."""


class OnlineError(FlightsError):
    """The online store cannot be written now; worth another try."""


class Progress(Protocol):
    """Whose turn it is, and how far everybody together has come."""

    def acquire(self) -> int | None:
        """Wait for one's turn; return up to when the store has everything, None if that is not known."""

    def renew(self) -> None:
        """Say that one's turn goes on."""

    def release(self, published_us: int) -> None:
        """End one's turn: the store has everything up to ``published_us``."""

    def give_up(self) -> None:
        """End one's turn with nothing said."""


class OwnProgress:
    """For a store with a single writer: SQLite."""

    def __init__(self) -> None:
        self._published_us: int | None = None

    def acquire(self) -> int | None:
        """Return what this writer has published itself."""
        return self._published_us

    def renew(self) -> None:
        """Nobody else waits."""

    def release(self, published_us: int) -> None:
        """Note it."""
        self._published_us = published_us

    def give_up(self) -> None:
        """Keep the note: what is written again is the same."""


class SharedProgress:
    """In Redis, beside the features."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._lock = client.lock(LOCK, timeout=LOCK_S, blocking_timeout=2 * LOCK_S)

    def acquire(self) -> int | None:
        """Take the lock; return what the note says."""
        if not self._lock.acquire():
            raise OnlineError(f"another writer holds {LOCK}; see whose pods write")
        note = self._client.get(NOTE)
        return None if note is None else int(note)

    def renew(self) -> None:
        """Hold the lock for its full time from now."""
        self._lock.reacquire()

    def release(self, published_us: int) -> None:
        """Write the note and give the lock back, together: a store that was emptied meanwhile gets no note."""
        with self._client.pipeline() as together:
            together.watch(LOCK)
            if not self._lock.owned():
                raise OnlineError(f"{LOCK} was lost on the way; the rows are written again")
            together.multi()
            together.set(NOTE, published_us)
            together.delete(LOCK)
            together.execute()

    def give_up(self) -> None:
        """Give the lock back if it is still there to be given."""
        try:
            self._lock.release()
        except (LockError, RedisError):
            _LOG.info("lock was lost key=%s", LOCK)


class LivePublisher:
    """Brings the online store to the present, from whatever state it is in."""

    def __init__(self, store: FeatureStore, data: Path) -> None:
        """Read the views' sources.

        Args:
            store: The feature store.
            data: Folder of the views' sources, ``VIEW.parquet``.

        Raises:
            FlightsError: The registry has a view without a source, or with other features than its source.
        """
        self._config = store.config
        self._online = store.provider.online_store
        self._views = [_read(view, data) for view in store.list_feature_views()]
        if not self._views:
            raise FlightsError("the registry has no feature views; `python -m flights.cluster manifests` writes them")
        is_redis = isinstance(self._online, RedisOnlineStore)
        # Feast has no public way to its client, and a second one would read the settings another way.
        client = self._online._get_client(self._config.online_store) if is_redis else None  # noqa: SLF001
        self._progress: Progress = SharedProgress(client) if is_redis else OwnProgress()

    def publish(self, now_us: int, *, anew: bool = False) -> int:
        """Write what became known up to ``now_us``, or everything where nothing is known of the store.

        Args:
            now_us: The present, microseconds since 1970-01-01 UTC.
            anew: Write everything in any case. What is stored already, or is newer, stays.

        Returns:
            Rows written.

        Raises:
            OnlineError: The store does not answer, or another writer does not end.
        """
        try:
            return self._publish(now_us, anew=anew)
        except (RedisError, LockError) as error:
            raise OnlineError(f"the online store failed ({type(error).__name__})") from error

    def _publish(self, now_us: int, *, anew: bool) -> int:
        published_us = self._progress.acquire()
        try:
            rows = self._write(None if anew else published_us, now_us)
        except BaseException:
            self._progress.give_up()
            raise
        self._progress.release(max(now_us, published_us or 0))
        return rows

    def _write(self, after_us: int | None, now_us: int) -> int:
        count = 0
        for view in self._views:
            rows = rows_between(view, after_us, now_us)
            for first in range(0, len(rows), BATCH):
                self._progress.renew()
                self._online.online_write_batch(self._config, view.view, rows[first : first + BATCH], None)
            count += len(rows)
        return count


def rows_between(view: PublishedView, after_us: int | None, until_us: int) -> Sequence[OnlineRow]:
    """Return each key's last row that becomes known in ``(after, until]``, with the time at which it does.

    Args:
        view: A view with its source of 2013.
        after_us: Microseconds since 1970-01-01 UTC, excluded; None is ever since.
        until_us: Likewise, included.
    """
    last: dict[int, tuple[int, int]] = {}
    for stretch in stretches(after_us, until_us):
        found = view.last_between(stretch.after_us, stretch.until_us)
        last |= {key: (index, stretch.shift_us) for key, index in found.items()}
    return [view.row(index, shift_us=shift) for index, shift in last.values()]


def _read(view: Any, data: Path) -> PublishedView:
    try:
        return PublishedView.read(view, data)
    except FileNotFoundError as error:
        raise FlightsError(f"{data}: no source of view {view.name}; the registry is of another image") from error
    except KeyError as error:
        raise FlightsError(f"{data}/{view.name}.parquet: no column {error}; the registry is of another image") from None
