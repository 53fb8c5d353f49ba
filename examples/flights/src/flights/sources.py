"""The feature views' sources: what each view's rows are, computed from the raw data for the whole year.

Views of punctuality hold rolling windows over flights that had **landed** by the row's event time. A row is written
when its key sees a landing, stamped with the landing or, for views on a grid, with the end of the grid cell; the
view's ttl makes it expire. Timestamps are microseconds in UTC: nanoseconds would make materialization fail on DuckDB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from flights import windows

EVENT_TIME = "event_timestamp"
"""Column of every source: when a row's features were known."""

PLANES_KNOWN_AT = datetime(2013, 1, 1, tzinfo=UTC)
"""The registry of aircraft is taken as of the start of the year."""

ROW_GROUP = 16_384
"""Rows per parquet row group; sources are sorted by time, so that a reader skips what is outside its window."""

Column = NDArray[Any]
"""A column of a source, shape [rows]."""

_FLIGHTS = "flights"
_LAST = "last_arrival_delay"
_MEANS = {
    "mean_arrival_delay": "arrival_delay",
    "mean_departure_delay": "departure_delay",
    "share_late": "late",
}
"""Feature by name, and the flights' column that it is the mean of."""


@dataclass(frozen=True, slots=True)
class RollingView:
    """A view of rolling punctuality."""

    name: str
    key: str
    """Join key: a column of the flights."""
    width: timedelta
    """Width of the window."""
    step: timedelta | None = None
    """Grid on which rows are stamped; None: a row per landing."""
    with_last: bool = False
    """Whether the last landing's own delay is a feature."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the view's features, in order."""
        return (_FLIGHTS, *_MEANS, _LAST) if self.with_last else (_FLIGHTS, *_MEANS)


ROLLING_VIEWS = (
    RollingView("tail_performance", "tailnum", timedelta(hours=12), with_last=True),
    RollingView("carrier_performance", "carrier", timedelta(hours=3), step=timedelta(minutes=10)),
    RollingView("carrier_week", "carrier", timedelta(days=7), step=timedelta(hours=1)),
    RollingView("origin_performance", "origin", timedelta(hours=2), step=timedelta(minutes=10)),
    RollingView("dest_performance", "dest", timedelta(hours=6)),
)

_WEATHER = {
    "temperature_f": "temp",
    "dew_point_f": "dewp",
    "humidity_percent": "humid",
    "wind_speed_mph": "wind_speed",
    "wind_gust_mph": "wind_gust",
    "precipitation_in": "precip",
    "pressure_mbar": "pressure",
    "visibility_mi": "visib",
}


def rolling_source(view: RollingView, flights: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a rolling view: join key, event time and float32 features, one row per key and time.

    Args:
        view: What to compute.
        flights: As ``raw.load_flights`` returns them.
    """
    landed = flights[flights["landed_at"].notna() & flights[view.key].notna()]
    codes, names = pd.factorize(landed[view.key], sort=True)
    times_us = landed["landed_at"].to_numpy(np.int64)
    events = windows.Events(codes.astype(np.int64), times_us, landed[list(_MEANS.values())].to_numpy())
    stamps_us = times_us if view.step is None else windows.grid_end(times_us, _us(view.step))
    rows = pd.DataFrame({"code": events.keys, "at_us": stamps_us}).drop_duplicates().sort_values(["at_us", "code"])
    keys, at_us = rows["code"].to_numpy(), rows["at_us"].to_numpy()
    sums = windows.rolling_sums(events, keys, at_us, _us(view.width))
    features = {_FLIGHTS: sums.counts} | dict(zip(_MEANS, sums.means.T, strict=True))
    if view.with_last:
        last = windows.last_before(events.keys, events.times_us, keys, at_us)
        features[_LAST] = landed["arrival_delay"].to_numpy()[last]
    return _source({view.key: names.to_numpy()[keys]}, at_us, features)


def weather_source(weather: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of ``origin_weather``: as measured, known an hour later; what was not measured stays missing."""
    ordered = weather.sort_values(["known_at", "origin"])
    features = {feature: ordered[column].to_numpy() for feature, column in _WEATHER.items()}
    return _source({"origin": ordered["origin"].to_numpy()}, ordered["known_at"].to_numpy(np.int64), features)


def plane_source(planes: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of ``plane``: age in 2013 (missing where the year of manufacture is), engines, seats."""
    features = {
        "age_years": PLANES_KNOWN_AT.year - planes["year"].to_numpy(),
        "engines": planes["engines"].to_numpy(),
        "seats": planes["seats"].to_numpy(),
    }
    known_at_us = np.full(len(planes), int(PLANES_KNOWN_AT.timestamp()) * 1_000_000)
    return _source({"tailnum": planes["tailnum"].to_numpy()}, known_at_us, features)


def source_builders() -> dict[str, Callable[[RawFrames], pd.DataFrame]]:
    """Return by view name the function that computes its source."""
    rolling = {view.name: _rolling_builder(view) for view in ROLLING_VIEWS}
    return {
        "origin_weather": lambda raw: weather_source(raw.weather),
        **rolling,
        "plane": lambda raw: plane_source(raw.planes),
    }


@dataclass(frozen=True, slots=True)
class RawFrames:
    """The raw data that sources are computed from; see ``flights.raw``."""

    flights: pd.DataFrame
    weather: pd.DataFrame
    planes: pd.DataFrame


def write_source(source: pd.DataFrame, path: Path) -> None:
    """Write a source as parquet, in one step: a reader sees the old file or the new one."""
    table = pa.Table.from_pandas(source, preserve_index=False)
    fresh = path.with_name(f".{path.name}.partial")
    parquet.write_table(table, fresh, row_group_size=ROW_GROUP, coerce_timestamps="us")
    fresh.replace(path)


def _rolling_builder(view: RollingView) -> Callable[[RawFrames], pd.DataFrame]:
    return lambda raw: rolling_source(view, raw.flights)


def _source(key: Mapping[str, np.ndarray], times: np.ndarray, features: Mapping[str, np.ndarray]) -> pd.DataFrame:
    at = pd.Series(times).astype("datetime64[us]").dt.tz_localize(UTC)
    values = {name: column.astype(np.float32) for name, column in features.items()}
    return pd.DataFrame({**key, EVENT_TIME: at, **values})


def _us(width: timedelta) -> int:
    return width // timedelta(microseconds=1)
