"""Training sets: rows in are rows out, in order, whatever the chunk; and building all of it stays within bounds."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from fairlead.features.service import describe
from flights import dataset, raw
from flights.dataset import KEYS, REQUEST_FEATURES, DatasetError, join_features, training_set
from flights.paths import BUILD
from flights.sources import EVENT_TIME
from support.flights import SERVICES, built_repo

if TYPE_CHECKING:
    from feast import FeatureStore

FEATURES = ["tail_performance:last_arrival_delay", "carrier_week:flights", "departure:hour", "plane:age_years"]
MARCH = datetime(2013, 3, 9, tzinfo=UTC)
BOUND_S, BOUND_BYTES = 45, 5e9
"""What building all rows may take on two idle cores."""


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    flights = raw.load_flights()
    some = flights[flights["asked_at"].between(pd.Timestamp(MARCH), pd.Timestamp(MARCH + timedelta(days=3)))]
    return some[[*KEYS, *REQUEST_FEATURES]].assign(**{EVENT_TIME: some["asked_at"]})


def test_duplicates_of_key_and_time_stay(flights_store: FeatureStore, rows: pd.DataFrame) -> None:
    twice = pd.concat([rows, rows.head(200), rows.head(50)])
    joined = join_features(flights_store, FEATURES, twice)
    assert len(joined) == len(rows) + 250
    assert_frame_equal(joined.iloc[len(rows) : len(rows) + 200], joined.head(200))


def test_order_and_index_are_the_callers(flights_store: FeatureStore, rows: pd.DataFrame) -> None:
    shuffled = rows.sample(frac=1, random_state=3)
    joined = join_features(flights_store, FEATURES, shuffled)
    assert joined.index.equals(shuffled.index)
    assert joined["departure__hour"].tolist() == shuffled["hour"].tolist()
    assert_frame_equal(joined.sort_index(), join_features(flights_store, FEATURES, rows))


@pytest.mark.parametrize("chunk", [timedelta(hours=7), timedelta(days=30)], ids=str)
def test_chunks_change_nothing(flights_store: FeatureStore, rows: pd.DataFrame, chunk: timedelta) -> None:
    done: list[int] = []
    joined = join_features(flights_store, FEATURES, rows, chunk=chunk, on_progress=done.append)
    assert_frame_equal(joined, join_features(flights_store, FEATURES, rows))
    assert sum(done) == len(rows)


def test_an_unknown_key_is_a_row_without_values(flights_store: FeatureStore, rows: pd.DataFrame) -> None:
    joined = join_features(
        flights_store, FEATURES, rows.head(3).assign(tailnum=pd.Series(["NOSUCH", None, "N14228"], rows.index[:3]))
    )
    assert joined["plane__age_years"].isna().tolist() == [True, True, False]


def test_no_rows_are_refused(flights_store: FeatureStore, rows: pd.DataFrame) -> None:
    with pytest.raises(DatasetError, match="no rows"):
        join_features(flights_store, FEATURES, rows.head(0))


def test_a_store_that_is_not_built_says_what_to_do(flights_store: FeatureStore, tmp_path: Path) -> None:
    for file in ("definitions.py", "feature_store.yaml"):
        (tmp_path / file).write_bytes((Path(flights_store.repo_path) / file).read_bytes())
    store = dataset.open_store(tmp_path)
    with pytest.raises(DatasetError, match="run `make features`"):
        training_set("late_logistic", MARCH, MARCH + timedelta(days=1), store=store)


MEASURE = """
import json, resource, sys, time
from datetime import UTC, datetime
from pathlib import Path
from flights import dataset
dataset.BUILD = Path(sys.argv[1])
store = dataset.open_store(Path(sys.argv[2]))
start = time.perf_counter()
rows = dataset.training_set(
    "late_boosted", datetime(2013, 1, 1, tzinfo=UTC), datetime(2014, 1, 2, tzinfo=UTC), store=store, labelled=False
)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"rows": len(rows), "seconds": time.perf_counter() - start, "peak_bytes": peak}))
"""


@pytest.mark.flights
def test_all_rows_of_both_services_stay_within_time_and_memory(flights_repo: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, str(tmp_path), str(flights_repo)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    figures = json.loads(output.splitlines()[-1])
    (BUILD / "figures").mkdir(parents=True, exist_ok=True)
    (BUILD / "figures" / "dataset.json").write_text(json.dumps(figures) + "\n")
    assert figures["rows"] == 336_776
    assert figures["peak_bytes"] < BOUND_BYTES
    assert figures["seconds"] < 3 * BOUND_S  # other tests run beside it; what it took is in the figures


@pytest.mark.flights
@pytest.mark.parametrize("service", SERVICES)
def test_a_training_set_has_the_services_features_in_order(service: str) -> None:
    store = dataset.open_store(built_repo())
    rows = training_set(service, MARCH, MARCH + timedelta(days=2), store=store)
    features = [feature.input for feature in describe(store, service).features]
    about = ["flight_id", "tailnum", "origin", "dest", "carrier", "asked_at", "landed_at", "late"]
    assert list(rows.columns) == about + features
    assert rows["late"].dtype == np.int64
    assert set(rows["late"]) == {0, 1}
    assert {str(rows[feature].dtype) for feature in features} == {"float32", "int64", "float64"}
    assert rows["flight_id"].is_monotonic_increasing
    assert rows["asked_at"].between(pd.Timestamp(MARCH), pd.Timestamp(MARCH + timedelta(days=2)), "left").all()


@pytest.mark.flights
def test_flights_without_label_are_there_when_asked_for() -> None:
    store = dataset.open_store(built_repo())
    end = MARCH + timedelta(days=2)
    all_flights = training_set("late_logistic", MARCH, end, store=store, labelled=False)
    labelled = training_set("late_logistic", MARCH, end, store=store)
    assert (
        len(all_flights) > len(labelled) == all_flights["landed_at"].notna().sum() == all_flights["late"].notna().sum()
    )


@pytest.mark.flights
def test_a_training_set_is_read_back_from_its_cache() -> None:
    store = dataset.open_store(built_repo())
    training_set("late_boosted", MARCH, MARCH + timedelta(days=2), store=store)
    start = time.perf_counter()
    training_set("late_boosted", MARCH, MARCH + timedelta(days=2), store=store)
    assert time.perf_counter() - start < 5  # building it anew takes longer
