"""Feast's SQLite online store, made fit for serving beside a writer.

:class:`WalSqliteOnlineStore` differs from its parent in four ways:

- write-ahead log: readers neither wait for the writer nor make it wait;
- a batch is one transaction: a reader sees all of it or nothing;
- an older row never replaces a newer one. Of rows with the same event time the later created one stays, and where
  that is not known, the one written last;
- event times are kept in microseconds and in UTC; the parent keeps whole seconds in the process's time zone.

The tables are Feast's, but ``event_ts`` and ``created_ts`` hold microseconds since 1970-01-01 UTC, so a file belongs
to this store alone; it is marked so (``user_version``), and a file with another store's rows is refused. Vector and
text search are left to Feast's own store.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from feast import Entity, FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig

OnlineRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
"""What Feast hands to an online store: key, values by feature, event time, created time."""

ReadRow = tuple[datetime | None, dict[str, Value] | None]
"""What a read returns for a key: event time and values by feature, or two Nones."""

_TYPE: Final = "fairlead.features.sqlite.WalSqliteOnlineStore"
_FORMAT = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SqliteStoreError(RuntimeError):
    """A SQLite file cannot serve as this online store; the message names the file and what to do."""


class WalSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):  # type: ignore[misc]  # feast is untyped here
    """The ``online_store`` section of ``feature_store.yaml``."""

    type: Literal["fairlead.features.sqlite.WalSqliteOnlineStore"] = "fairlead.features.sqlite.WalSqliteOnlineStore"
    busy_timeout_s: float = 5.0
    """How long a writer waits for another writer, seconds."""
    text_search_enabled: Literal[False] = False
    enable_openai_compatible_store: Literal[False] = False


class WalSqliteOnlineStore(SqliteOnlineStore):  # type: ignore[misc]  # feast is untyped here
    """Online store in one SQLite file, for one machine: one writer at a time, any number of readers."""

    def __init__(self) -> None:
        super().__init__()
        self._conn: sqlite3.Connection | None = None
        self._write_lock = threading.Lock()

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: Sequence[OnlineRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows of one view in one transaction, in any order; a row older than what is stored is left out."""
        with self._write_lock, self._get_conn(config) as transaction:
            _upsert(transaction, config, table, data)
        if progress:
            progress(len(data))

    def replace(self, config: RepoConfig, views: Iterable[tuple[FeatureView, Sequence[OnlineRow]]]) -> None:
        """Put views into a given state, whatever they held before, in one transaction over all of them."""
        with self._write_lock, self._get_conn(config) as transaction:
            for view, rows in views:
                transaction.execute(f"DELETE FROM {_table(config, view)}")  # noqa: S608 -- a quoted identifier
                _upsert(transaction, config, view, rows)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: Sequence[EntityKey],
        requested_features: Sequence[str] | None = None,
    ) -> list[ReadRow]:
        """Return the row of each key, in order: the features asked for, and the event time of the oldest of them."""
        keys = [_key(config, key) for key in entity_keys]
        names = requested_features or [feature.name for feature in table.features]
        found: dict[bytes, list[tuple[str, bytes, int]]] = {}
        for key, *cell in self._get_conn(config).execute(
            f"SELECT entity_key, feature_name, value, event_ts FROM {_table(config, table)} "  # noqa: S608 -- quoted
            f"WHERE entity_key IN ({_places(keys)}) AND feature_name IN ({_places(names)})",
            [*keys, *names],
        ):
            found.setdefault(key, []).append((cell[0], cell[1], cell[2]))
        return [_read_row(found.get(key)) for key in keys]

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Delete the file and what WAL mode keeps beside it."""
        super().teardown(config, tables, entities)
        for suffix in ("-wal", "-shm"):
            Path(f"{self._get_db_path(config)}{suffix}").unlink(missing_ok=True)

    def _get_conn(self, config: RepoConfig) -> sqlite3.Connection:
        if self._conn is None:
            path = Path(self._get_db_path(config))
            self._conn = _connect(path, config.online_store.busy_timeout_s)
        return self._conn


def check_wal(config: RepoConfig) -> None:
    """Check, before serving from it, that a SQLite online store exists, is in WAL mode and has this store's format.

    Args:
        config: A store's configuration (``FeatureStore.config``); one without SQLite online passes.

    Raises:
        SqliteStoreError: The file is missing, has another journal mode, or belongs to Feast's own SQLite store.
    """
    online = config.online_store
    if not isinstance(online, SqliteOnlineStoreConfig):
        return
    path = Path(SqliteOnlineStore._get_db_path(config))  # noqa: SLF001 -- Feast has no public way to the file's path
    if not isinstance(online, WalSqliteOnlineStoreConfig):
        raise SqliteStoreError(f"{path}: Feast's own SQLite store makes readers wait for writers; set `type: {_TYPE}`")
    if not path.exists():
        raise SqliteStoreError(f"{path}: no online store; apply and materialize the feature repository first")
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    if mode != "wal" or version != _FORMAT:
        raise SqliteStoreError(
            f"{path}: journal mode {mode}, format {version}; expected wal, {_FORMAT}: "
            f"delete the file and materialize again with `type: {_TYPE}`"
        )


def _connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level="IMMEDIATE", check_same_thread=False)
    if connection.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
        _claim(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _claim(connection: sqlite3.Connection, path: Path) -> None:
    """Mark a file as this store's, unless it holds rows that another store wrote."""
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    if any(connection.execute(f"SELECT 1 FROM {_quoted(name)} LIMIT 1").fetchone() for name in names):  # noqa: S608
        connection.close()
        raise SqliteStoreError(f"{path}: holds rows of another store; delete the file and materialize again")
    connection.execute(f"PRAGMA user_version = {_FORMAT}")


def _upsert(transaction: sqlite3.Connection, config: RepoConfig, table: FeatureView, data: Iterable[OnlineRow]) -> None:
    transaction.executemany(
        f"INSERT INTO {_table(config, table)} (entity_key, feature_name, value, event_ts, created_ts) "  # noqa: S608
        "VALUES (?, ?, ?, ?, ?) ON CONFLICT (entity_key, feature_name) DO UPDATE "
        "SET value = excluded.value, event_ts = excluded.event_ts, created_ts = excluded.created_ts "
        "WHERE excluded.event_ts > event_ts OR (excluded.event_ts = event_ts "
        "AND coalesce(excluded.created_ts, created_ts, 0) >= coalesce(created_ts, excluded.created_ts, 0))",
        _cells(config, data),
    )


def _cells(config: RepoConfig, data: Iterable[OnlineRow]) -> Iterator[tuple[bytes, str, bytes, int, int | None]]:
    for entity_key, values, event_time, created_time in data:
        key = _key(config, entity_key)
        event_us = _to_us(event_time)
        created_us = None if created_time is None else _to_us(created_time)
        for name, value in values.items():
            yield key, name, value.SerializeToString(), event_us, created_us


def _read_row(cells: list[tuple[str, bytes, int]] | None) -> ReadRow:
    if cells is None:
        return None, None
    oldest_us = min(event_us for _, _, event_us in cells)
    return _EPOCH + oldest_us * _MICROSECOND, {name: Value.FromString(value) for name, value, _ in cells}


def _key(config: RepoConfig, key: EntityKey) -> bytes:
    encoded: bytes = serialize_entity_key(key, config.entity_key_serialization_version)
    return encoded


def _table(config: RepoConfig, table: FeatureView) -> str:
    return _quoted(compute_table_id(config.project, table, config.registry.enable_online_feature_view_versioning))


def _places(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _to_us(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND
