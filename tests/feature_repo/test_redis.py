"""The same features on Redis, by one setting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flights import features, raw
from flights.publish import Publisher
from flights.store import open_store
from support.flights import REPLAY_START_US, copied_repo
from support.moments import TICK_US, check_moments, moments
from support.servers import RedisServer, redis_server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        monkeypatch.setenv("FAIRLEAD_REDIS", f"127.0.0.1:{running.port}")
        yield running


@pytest.fixture
def repo(tmp_path: Path, server: RedisServer) -> Path:
    assert server
    folder = copied_repo(tmp_path / "feature_repo", online=False)
    features.build(folder)
    return folder


def test_what_is_in_redis_equals_the_join_and_the_raw_data(repo: Path) -> None:
    flights = raw.load_flights()
    assert check_moments(open_store(repo), flights, moments(flights)) == {"PRESENT", "NULL", "STALE", "NOT_FOUND"}


def test_going_back_leaves_nothing_of_the_future(repo: Path) -> None:
    store = open_store(repo)
    client = store.provider.online_store._get_client(store.config.online_store)

    def everything() -> dict[bytes, dict[bytes, bytes]]:
        return {key: client.hgetall(key) for key in client.scan_iter()}

    materialized = everything()
    publisher = Publisher(store, repo)
    publisher.publish_until(REPLAY_START_US + 50 * TICK_US)
    assert everything() != materialized
    publisher.reset_to(REPLAY_START_US)
    assert everything() == materialized
