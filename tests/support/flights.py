"""The flights feature repository for tests: built once per checkout, then copied, so that each writes to its own."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fairlead.clock import to_us
from flights import features
from flights.paths import FEATURE_REPO
from flights.store import REDIS_SETTING, open_store

if TYPE_CHECKING:
    from feast import FeatureStore

SERVICES = features.FEATURE_SERVICES
REPLAY_START_US = to_us(features.REPLAY_START)
"""What a copied repository's online store holds: everything known by then."""


def built_repo() -> Path:
    """Return the checkout's own feature repository, built; for reading only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(REDIS_SETTING, raising=False)  # a test that is about Redis copies what SQLite's build made
        features.build(FEATURE_REPO)
    return FEATURE_REPO


def copied_repo(folder: Path, *, online: bool = True) -> Path:
    """Copy the built feature repository.

    Args:
        folder: Where to; made.
        online: Whether to fill the copy's online store, as of the start of the replay.
    """
    ignored = shutil.ignore_patterns("online_store.db*", ".lock", "__pycache__", "*.partial")
    shutil.copytree(built_repo(), folder, ignore=ignored)
    if online:
        fill_online(open_store(folder))
    return folder


def fill_online(store: FeatureStore, time_us: int = REPLAY_START_US) -> None:
    """Put a store's online side into the state of a moment."""
    from flights.publish import Publisher  # noqa: PLC0415 -- feast takes 2 s to import

    views = store.list_feature_views()
    store.provider.online_store.update(store.config, [], views, [], [], partial=False)
    Publisher(store, Path(store.repo_path)).reset_to(time_us)


def online_rows(repo: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return everything in a repository's SQLite online store, by table, sorted."""
    columns = "entity_key, feature_name, value, event_ts, created_ts"
    with closing(sqlite3.connect(repo / "data" / "online_store.db")) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        queries = {name: f'SELECT {columns} FROM "{name}"' for name in tables}  # noqa: S608 -- names from the schema
        return {name: sorted(connection.execute(query).fetchall()) for name, query in queries.items()}
