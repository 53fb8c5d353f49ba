"""Publishing: the online store holds what was known at each moment, and goes back exactly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from fairlead.policy import Hydration
from flights import raw
from flights.expected import expected_states
from flights.features import REPLAY_START, YEAR_START
from flights.publish import Publisher, PublishError
from flights.store import materialize, open_store
from support.flights import REPLAY_START_US, copied_repo, fill_online, online_rows
from support.moments import SERVICE, TICK_US, check_moments, moments

if TYPE_CHECKING:
    from feast import FeatureStore


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return copied_repo(tmp_path / "feature_repo")


@pytest.fixture
def store(repo: Path) -> FeatureStore:
    return open_store(repo)


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    return raw.load_flights()


def test_what_is_online_equals_the_join_and_the_raw_data_at_every_moment(
    store: FeatureStore, flights: pd.DataFrame
) -> None:
    seen = check_moments(store, flights, moments(flights))
    assert seen == {"PRESENT", "NULL", "STALE", "NOT_FOUND"}


def test_reset_gives_exactly_what_feast_materializes(repo: Path, store: FeatureStore) -> None:
    online = store.provider.online_store
    views = store.list_feature_views()
    online.teardown(store.config, views, [])
    online.update(store.config, [], views, [], [], partial=False)
    for view in views:
        materialize(store, view.name, YEAR_START, REPLAY_START)
    materialized = online_rows(repo)
    publisher = Publisher(store, repo)
    publisher.publish_until(REPLAY_START_US + 200 * TICK_US)
    assert online_rows(repo) != materialized
    publisher.reset_to(REPLAY_START_US)
    assert online_rows(repo) == materialized


def test_many_ticks_give_the_state_of_one(repo: Path, store: FeatureStore) -> None:
    publisher = Publisher(store, repo)
    for tick in range(1, 301):
        publisher.publish_until(REPLAY_START_US + tick * TICK_US)
    ticked = online_rows(repo)
    publisher.reset_to(publisher.published_us)
    assert online_rows(repo) == ticked
    publisher.reset_to(REPLAY_START_US)
    publisher.publish_until(REPLAY_START_US + 300 * TICK_US)
    assert online_rows(repo) == ticked


def test_publishing_the_same_moment_again_changes_nothing(repo: Path, store: FeatureStore) -> None:
    publisher = Publisher(store, repo)
    publisher.publish_until(REPLAY_START_US + TICK_US)
    before = online_rows(repo)
    publisher.publish_until(REPLAY_START_US + TICK_US)
    assert online_rows(repo) == before


def test_time_does_not_go_back_by_publishing(repo: Path, store: FeatureStore) -> None:
    publisher = Publisher(store, repo)
    publisher.publish_until(REPLAY_START_US + TICK_US)
    with pytest.raises(PublishError, match="call reset_to"):
        publisher.publish_until(REPLAY_START_US)


def test_a_stricter_age_makes_more_of_it_stale(flights_store: FeatureStore, flights: pd.DataFrame) -> None:
    asks = flights[flights["asked_at"] >= REPLAY_START].head(2000)
    loose = expected_states(flights_store, SERVICE, asks)["carrier_week__flights"]
    strict = expected_states(flights_store, SERVICE, asks, Hydration(max_age_s={"carrier_week": 3600.0}))[
        "carrier_week__flights"
    ]
    assert (loose == "STALE").sum() < (strict == "STALE").sum()


def test_nine_in_ten_features_of_the_replay_are_present(flights_store: FeatureStore, flights: pd.DataFrame) -> None:
    replayed = flights[flights["asked_at"] >= REPLAY_START]
    for service in ("late_logistic", SERVICE):
        states = expected_states(flights_store, service, replayed)
        assert len(states) == 55_479
        assert (states == "PRESENT").to_numpy().mean() > 0.9


def test_filling_a_store_at_another_moment(repo: Path, store: FeatureStore) -> None:
    fill_online(store, REPLAY_START_US + TICK_US)
    filled = online_rows(repo)
    Publisher(store, repo).reset_to(REPLAY_START_US)
    assert online_rows(repo) != filled
