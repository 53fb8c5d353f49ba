"""What is online at a moment, compared with the point-in-time join and with the raw data."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from fairlead.clock import from_us, to_us
from fairlead.features.service import describe
from fairlead.policy import FeatureState
from flights.dataset import join_features
from flights.expected import expected_states
from flights.features import REPLAY_START
from flights.publish import Publisher
from flights.sources import EVENT_TIME

if TYPE_CHECKING:
    from feast import FeatureStore

TICK_US = 600_000_000
"""The replay's step."""
CLOCKS_GO_BACK_US = to_us(REPLAY_START) + 2 * 24 * 6 * TICK_US
SERVICE = "late_boosted"


def asked_at(flights: pd.DataFrame, time_us: int) -> pd.DataFrame:
    return flights[flights["asked_at"] == pd.Timestamp(from_us(time_us))]


def found_online(
    store: FeatureStore, asks: pd.DataFrame, time_us: int
) -> tuple[dict[str, list[float | None]], dict[str, list[str]]]:
    """Read features as any reader of the store would, and tell their states by the rules of ``FeatureState``."""
    values: dict[str, list[float | None]] = {}
    states: dict[str, list[str]] = {}
    for feature in describe(store, SERVICE).features:
        if feature.on_demand:
            continue
        view = store.get_feature_view(feature.view)
        keys = [entity_key(feature.join_keys[0], tail) for tail in asks[feature.join_keys[0]].fillna("")]
        read = store.provider.online_store.online_read(store.config, view, keys, [feature.name])
        cells = [cell(row, feature.name, feature.ttl_s, time_us) for row in read]
        values[feature.input] = [value for _, value in cells]
        states[feature.input] = [state for state, _ in cells]
    return values, states


def entity_key(name: str, value: str) -> EntityKey:
    return EntityKey(join_keys=[name], entity_values=[Value(string_val=value)])


def cell(row: Any, name: str, ttl_s: float | None, time_us: int) -> tuple[str, float | None]:
    event_time, values = row
    if event_time is None or event_time.timestamp() == 0:
        return FeatureState.NOT_FOUND.value, None
    if values[name].WhichOneof("val") is None:
        return FeatureState.NULL.value, None
    if ttl_s is not None and from_us(time_us) - event_time > timedelta(seconds=ttl_s):
        return FeatureState.STALE.value, None
    return FeatureState.PRESENT.value, values[name].float_val


def check_moments(store: FeatureStore, flights: pd.DataFrame, moments_us: Sequence[int]) -> set[str]:
    """Publish up to each moment and compare what is online with the point-in-time join and the raw data."""
    publisher = Publisher(store, Path(store.repo_path))
    stored = [feature for feature in describe(store, SERVICE).features if not feature.on_demand]
    asks = flights[flights["asked_at"].isin([pd.Timestamp(from_us(time_us)) for time_us in moments_us])]
    expected = expected_states(store, SERVICE, asks)
    rows = asks.assign(**{EVENT_TIME: asks["asked_at"]})
    joined = join_features(store, [f"{feature.view}:{feature.name}" for feature in stored], rows)
    seen: set[str] = set()
    for time_us in moments_us:
        publisher.publish_until(time_us)
        now = asked_at(asks, time_us)
        values, states = found_online(store, now, time_us)
        for feature in stored:
            offline = [None if pd.isna(value) else value for value in joined.loc[now.index, feature.input]]
            assert values[feature.input] == offline, (feature, from_us(time_us))
            assert states[feature.input] == expected.loc[now.index, feature.input].tolist(), (feature, from_us(time_us))
            seen |= set(states[feature.input])
    return seen


def moments(flights: pd.DataFrame) -> list[int]:
    """Moments of the replay with flights: around the clock change, the gap in the weather, and at random."""
    grid = sorted({to_us(moment.to_pydatetime()) for moment in flights["asked_at"] if moment >= REPLAY_START})
    change = [time for time in grid if 0 <= time - CLOCKS_GO_BACK_US <= 24 * 6 * TICK_US]
    dice = random.Random(3)  # noqa: S311 -- a fixed draw, not a secret
    return sorted({grid[0], *dice.sample(change, 4), *dice.sample(grid, 8), *grid[-200:-140:30]})
