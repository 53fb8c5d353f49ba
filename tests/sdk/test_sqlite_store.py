"""The SQLite online store: newer wins, batches are whole, readers do not wait, and it reads like Feast's own."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from feast import Entity, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float32, Int64, String

from fairlead.features.sqlite import SqliteStoreError, WalSqliteOnlineStore, check_wal

WAL = "fairlead.features.sqlite.WalSqliteOnlineStore"
NOON = datetime(2013, 11, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
PLANE = Entity(name="plane", join_keys=["tailnum"], value_type=ValueType.STRING)
VIEW = FeatureView(
    name="punctuality",
    entities=[PLANE],
    schema=[
        Field(name="tailnum", dtype=String),
        Field(name="delay", dtype=Float32),
        Field(name="flights", dtype=Int64),
        Field(name="last", dtype=String),
    ],
    source=FileSource(name="punctuality", path="punctuality.parquet", timestamp_field="event_timestamp"),
)
VIEW.entity_columns = [Field(name="tailnum", dtype=String)]
VIEW.features = [field for field in VIEW.features if field.name != "tailnum"]


def config_of(folder: Path, kind: str = WAL) -> RepoConfig:
    return RepoConfig(
        project="flights",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": kind, "path": str(folder / f"{kind}.db")},
        entity_key_serialization_version=3,
    )


def opened(config: RepoConfig, store: SqliteOnlineStore) -> SqliteOnlineStore:
    store.update(config, [], [VIEW], [], [], partial=False)
    return store


@pytest.fixture
def config(tmp_path: Path) -> RepoConfig:
    return config_of(tmp_path)


@pytest.fixture
def store(config: RepoConfig) -> SqliteOnlineStore:
    return opened(config, WalSqliteOnlineStore())


def key(tail: str) -> EntityKey:
    return EntityKey(join_keys=["tailnum"], entity_values=[Value(string_val=tail)])


def row(tail: str, delay: float | None, at: datetime, created: datetime | None = None) -> tuple[Any, ...]:
    values = {
        "delay": Value() if delay is None else Value(float_val=delay),
        "flights": Value(int64_val=3),
        "last": Value(string_val="IAH"),
    }
    return key(tail), values, at, created


def read(store: SqliteOnlineStore, config: RepoConfig, *tails: str) -> Sequence[tuple[datetime | None, Any]]:
    rows: Sequence[tuple[datetime | None, Any]] = store.online_read(config, VIEW, [key(t) for t in tails])
    return rows


def delay_of(store: SqliteOnlineStore, config: RepoConfig, tail: str = "N1") -> float:
    values = read(store, config, tail)[0][1]
    delay: float = values["delay"].float_val
    return delay


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ((NOON, None), (NOON + SECOND, None), 2.0),
        ((NOON, None), (NOON - SECOND, None), 1.0),
        ((NOON, None), (NOON - timedelta(microseconds=1), None), 1.0),
        ((NOON, None), (NOON, None), 2.0),
        ((NOON, NOON), (NOON, NOON + SECOND), 2.0),
        ((NOON, NOON), (NOON, NOON - SECOND), 1.0),
        ((NOON, NOON), (NOON, None), 2.0),
        ((NOON, NOON), (NOON - SECOND, NOON + SECOND), 1.0),
    ],
    ids=[
        "a newer row replaces",
        "an older row does not",
        "a microsecond is enough",
        "of equal times the last written stays",
        "of equal times the later created stays",
        "an earlier created one does not replace",
        "unless its creation is unknown",
        "event time goes before creation time",
    ],
)
def test_newer_wins(
    store: SqliteOnlineStore,
    config: RepoConfig,
    first: tuple[datetime, datetime | None],
    second: tuple[datetime, datetime | None],
    kept: float,
) -> None:
    store.online_write_batch(config, VIEW, [row("N1", 1.0, *first)], None)
    store.online_write_batch(config, VIEW, [row("N1", 2.0, *second)], None)
    assert delay_of(store, config) == kept


def test_order_within_a_batch_does_not_matter(store: SqliteOnlineStore, config: RepoConfig) -> None:
    rows = [row("N1", float(i), NOON + i * SECOND) for i in range(20)]
    rows = [*rows[1::2], *reversed(rows[::2])]
    store.online_write_batch(config, VIEW, rows, None)
    assert delay_of(store, config) == 19.0


def test_event_times_keep_microseconds_in_any_time_zone(
    store: SqliteOnlineStore, config: RepoConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeated_hour = datetime(2013, 11, 3, 6, 30, 0, 123456, tzinfo=UTC)
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        store.online_write_batch(config, VIEW, [row("N1", 1.0, repeated_hour)], None)
        store.online_write_batch(config, VIEW, [row("N2", 1.0, repeated_hour.replace(tzinfo=None))], None)
        assert [at for at, _ in read(store, config, "N1", "N2")] == [repeated_hour, repeated_hour]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_nulls_missing_keys_and_order_of_keys(store: SqliteOnlineStore, config: RepoConfig) -> None:
    store.online_write_batch(config, VIEW, [row("N1", None, NOON), row("N2", 2.0, NOON)], None)
    found = read(store, config, "N2", "N9", "N1", "N2")
    assert [at for at, _ in found] == [NOON, None, NOON, NOON]
    assert found[1] == (None, None)
    assert found[2][1]["delay"].WhichOneof("val") is None
    assert found[0] == found[3]


def test_only_features_asked_for_are_read_and_the_oldest_of_them_gives_the_time(
    store: SqliteOnlineStore, config: RepoConfig
) -> None:
    store.online_write_batch(config, VIEW, [row("N1", 1.0, NOON)], None)
    newer = (key("N1"), {"flights": Value(int64_val=4)}, NOON + SECOND, None)
    store.online_write_batch(config, VIEW, [newer], None)
    assert store.online_read(config, VIEW, [key("N1")], ["flights"]) == [
        (NOON + SECOND, {"flights": Value(int64_val=4)})
    ]
    at, values = read(store, config, "N1")[0]
    assert (at, values["flights"].int64_val) == (NOON, 4)


def test_reads_equal_feasts_own_store_on_random_data(tmp_path: Path) -> None:
    dice = random.Random(5)  # noqa: S311 -- a fixed draw, not a secret
    ours, theirs = config_of(tmp_path), config_of(tmp_path, "sqlite")
    stores = [(opened(ours, WalSqliteOnlineStore()), ours), (opened(theirs, SqliteOnlineStore()), theirs)]
    tails = [f"N{i}" for i in range(60)]
    for minute in range(30):  # in event-time order: where Feast's own is right
        at = NOON + timedelta(minutes=minute)
        rows = [row(tail, dice.choice([None, dice.uniform(-60, 60)]), at) for tail in dice.sample(tails, 20)]
        for store, config in stores:
            store.online_write_batch(config, VIEW, rows, None)
    asked = [*dice.sample(tails, 50), "unknown"]
    mine, feasts = ([*read(store, config, *asked)] for store, config in stores)
    assert mine == feasts
    assert sum(values is not None for _, values in mine) > 40


def test_progress_counts_rows(store: SqliteOnlineStore, config: RepoConfig) -> None:
    done: list[int] = []
    store.online_write_batch(config, VIEW, [row("N1", 1.0, NOON), row("N2", 1.0, NOON)], done.append)
    assert sum(done) == 2


def test_a_batch_that_fails_leaves_nothing(store: SqliteOnlineStore, config: RepoConfig) -> None:
    broken = (key("N2"), {"delay": None}, NOON, None)
    with pytest.raises(AttributeError):
        store.online_write_batch(config, VIEW, [row("N1", 1.0, NOON), broken], None)
    assert read(store, config, "N1") == [(None, None)]


def test_replace_takes_a_view_back_in_time(store: SqliteOnlineStore, config: RepoConfig) -> None:
    store.online_write_batch(config, VIEW, [row("N1", 1.0, NOON), row("N2", 1.0, NOON)], None)
    assert isinstance(store, WalSqliteOnlineStore)
    store.replace(config, [(VIEW, [row("N1", 2.0, NOON - SECOND)])])
    assert delay_of(store, config) == 2.0
    assert read(store, config, "N2") == [(None, None)]


READER = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
import test_sqlite_store as t
folder = Path(sys.argv[1])
config = t.config_of(folder)
store = t.WalSqliteOnlineStore()
reads = torn = 0
slowest = 0.0
last = t.NOON
print("ready", flush=True)
until = time.monotonic() + 2
while time.monotonic() < until:
    start = time.monotonic()
    (at, values), (other_at, other) = t.read(store, config, "N1", "N2")
    slowest = max(slowest, time.monotonic() - start)
    torn += at != other_at or values["delay"] != other["delay"] or at < last
    last = at
    reads += 1
print(reads, torn, slowest, flush=True)
"""


def test_two_processes_read_whole_batches_beside_a_writer(
    store: SqliteOnlineStore, config: RepoConfig, tmp_path: Path
) -> None:
    def write(i: int) -> None:
        at = NOON + i * SECOND
        store.online_write_batch(config, VIEW, [row("N1", float(i), at), row("N2", float(i), at)], None)

    write(0)
    script = READER.format(path=[str(Path(__file__).parent)])
    readers = [start_reader(script, tmp_path) for _ in range(2)]
    for reader in readers:
        assert reader.stdout
        assert reader.stdout.readline() == "ready\n"
    i = 0
    while any(reader.poll() is None for reader in readers):
        i += 1
        write(i)
    for reader in readers:
        output, errors = reader.communicate(timeout=10)
        assert reader.returncode == 0, errors
        reads, torn, slowest_s = output.split()[-3:]
        assert int(reads) > 100
        assert int(torn) == 0
        assert float(slowest_s) < 2.0  # a busy machine; the point is that nobody waits for the writer's lock
    assert i > 100


def start_reader(script: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_second_writer_waits_instead_of_failing(store: SqliteOnlineStore, config: RepoConfig) -> None:
    other = WalSqliteOnlineStore()
    for i in range(50):
        (store, other)[i % 2].online_write_batch(config, VIEW, [row("N1", float(i), NOON + i * SECOND)], None)
    assert delay_of(other, config) == 49.0


@pytest.mark.usefixtures("store")
def test_the_file_is_in_wal_mode_and_says_so(config: RepoConfig) -> None:
    with closing(sqlite3.connect(config.online_store.path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    check_wal(config)


def test_a_missing_store_is_refused_at_start(config: RepoConfig) -> None:
    with pytest.raises(SqliteStoreError, match="no online store; apply and materialize"):
        check_wal(config)


def test_feasts_own_store_is_refused_at_start(tmp_path: Path) -> None:
    config = config_of(tmp_path, "sqlite")
    opened(config, SqliteOnlineStore())
    with pytest.raises(SqliteStoreError, match=f"set `type: {WAL}`"):
        check_wal(config)


def test_other_stores_pass_the_check(tmp_path: Path) -> None:
    redis = RepoConfig(
        project="flights",
        provider="local",
        registry=str(tmp_path / "registry.db"),
        online_store={"type": "redis", "connection_string": "127.0.0.1:1"},
        entity_key_serialization_version=3,
    )
    check_wal(redis)


def test_a_file_taken_out_of_wal_mode_is_refused(store: SqliteOnlineStore, config: RepoConfig) -> None:
    store.online_write_batch(config, VIEW, [row("N1", 1.0, NOON)], None)
    assert store._conn
    store._conn.close()
    with closing(sqlite3.connect(config.online_store.path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    with pytest.raises(SqliteStoreError, match="journal mode delete"):
        check_wal(config)


def test_rows_of_another_store_are_refused(tmp_path: Path) -> None:
    theirs, ours = config_of(tmp_path, "sqlite"), config_of(tmp_path)
    opened(theirs, SqliteOnlineStore()).online_write_batch(theirs, VIEW, [row("N1", 1.0, NOON)], None)
    Path(theirs.online_store.path).rename(ours.online_store.path)
    with pytest.raises(SqliteStoreError, match="holds rows of another store"):
        read(WalSqliteOnlineStore(), ours, "N1")


def test_teardown_leaves_no_files(store: SqliteOnlineStore, config: RepoConfig, tmp_path: Path) -> None:
    store.online_write_batch(config, VIEW, [row("N1", 1.0, NOON)], None)
    store.teardown(config, [VIEW], [])
    assert not list(tmp_path.iterdir())


def test_writing_costs_microseconds_per_value(
    store: SqliteOnlineStore, config: RepoConfig, record_property: Callable[[str, object], None]
) -> None:
    rows = [row(f"N{i}", 1.0, NOON) for i in range(3000)]
    start = time.perf_counter()
    store.online_write_batch(config, VIEW, rows, None)
    per_value_us = (time.perf_counter() - start) / 9000 * 1e6
    record_property("us_per_value", per_value_us)
    assert per_value_us < 100  # measured 4; the slack is for a busy machine
