"""The feature repository is a real Feast repository, and its definitions fit the sources that are built."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from pyarrow import parquet
from pyarrow import types as arrow_types

from fairlead.features.service import describe
from flights.paths import FEATURE_REPO
from flights.sources import EVENT_TIME
from support.flights import SERVICES

if TYPE_CHECKING:
    from feast import FeatureStore

HOUR_S = 3600.0


def test_feast_itself_reads_the_repository(flights_repo: Path) -> None:
    feast = Path(sys.executable).with_name("feast")
    listed = subprocess.run(
        [str(feast), "feature-services", "list"],
        cwd=flights_repo,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert all(service in listed.stdout for service in SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_services_can_be_put_into_a_contract(flights_store: FeatureStore, service: str) -> None:
    described = describe(flights_store, service)
    assert {entity.join_key for entity in described.entities} == {"tailnum", "origin", "dest", "carrier"}
    assert [(r.name, r.dtype) for r in described.request_features] == [
        ("hour", "int64"),
        ("weekday", "int64"),
        ("distance", "float64"),
    ]
    assert {f.dtype for f in described.features if not f.on_demand} == {"float32"}
    assert described.features[0].input == "departure__hour"


def test_ttls_are_what_the_documentation_says(flights_store: FeatureStore) -> None:
    described = describe(flights_store, "late_boosted")
    assert {feature.view: feature.ttl_s for feature in described.features if not feature.on_demand} == {
        "origin_weather": 3 * HOUR_S,
        "tail_performance": 12 * HOUR_S,
        "carrier_performance": 6 * HOUR_S,
        "carrier_week": 24 * HOUR_S,
        "origin_performance": 3 * HOUR_S,
        "dest_performance": 12 * HOUR_S,
        "plane": None,
    }


def test_sources_have_the_views_fields_in_microseconds_utc(flights_repo: Path, flights_store: FeatureStore) -> None:
    for view in flights_store.list_feature_views():
        table = parquet.read_table(flights_repo / "data" / f"{view.name}.parquet")
        (key,) = (column.name for column in view.entity_columns)
        assert set(table.column_names) == {key, EVENT_TIME, *(field.name for field in view.features)}
        assert str(table.schema.field(EVENT_TIME).type) == "timestamp[us, tz=UTC]"
        assert all(arrow_types.is_float32(table.schema.field(field.name).type) for field in view.features)
        assert table[key].null_count == 0


def test_a_source_has_one_row_per_key_and_time_in_order_of_time(
    flights_repo: Path, flights_store: FeatureStore
) -> None:
    for view in flights_store.list_feature_views():
        rows = parquet.read_table(flights_repo / "data" / f"{view.name}.parquet").to_pandas()
        assert not rows.duplicated([view.entity_columns[0].name, EVENT_TIME]).any()
        assert rows[EVENT_TIME].is_monotonic_increasing


def test_what_is_not_known_stays_missing(flights_repo: Path) -> None:
    def missing(view: str, feature: str) -> int:
        column = parquet.read_table(flights_repo / "data" / f"{view}.parquet", columns=[feature])[feature]
        count: int = column.null_count
        return count

    assert missing("plane", "age_years") == 70
    assert missing("origin_weather", "wind_gust_mph") == 20_778
    assert missing("origin_weather", "pressure_mbar") == 2_729
    assert missing("tail_performance", "last_arrival_delay") == 0


def test_the_on_demand_view_passes_on_what_the_request_says(flights_store: FeatureStore) -> None:
    call = flights_store.get_on_demand_feature_view("departure").feature_transformation.udf
    given = {"hour": [5, 23], "weekday": [0, 6], "distance": [200.0, 1400.0]}
    assert call(dict(given)) == given


def test_redis_differs_by_the_online_store_alone() -> None:
    def settings(name: str) -> dict[str, Any]:
        loaded: dict[str, Any] = yaml.safe_load((FEATURE_REPO / name).read_text())
        return loaded

    local, redis = settings("feature_store.yaml"), settings("feature_store.redis.yaml")
    assert redis.pop("online_store") == {"type": "redis", "connection_string": "${FAIRLEAD_REDIS}"}
    assert local.pop("online_store")["type"] == "fairlead.features.sqlite.WalSqliteOnlineStore"
    assert local == redis
