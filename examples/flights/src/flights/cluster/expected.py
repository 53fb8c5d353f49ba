"""What a prediction in the cluster must be at a moment: Feast's own point-in-time join and the model's own file.

Nothing here touches the online store, the servers or what publishes. The sources of 2013 are written once more with
the times at which they happen again, and Feast joins them as training does.
"""

from __future__ import annotations

import shutil
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pandas as pd
from numpy.typing import NDArray

from fairlead.clock import from_us
from fairlead.contract import Contract
from flights import raw
from flights.cluster.shift import PERIOD_US, START_US, in_2013, stretches
from flights.dataset import KEYS, REQUEST_FEATURES, join_features
from flights.paths import BUILD, FEATURE_REPO
from flights.runs import SERVICES
from flights.sources import EVENT_TIME
from flights.traffic import UNKNOWN_TAIL

if TYPE_CHECKING:
    from feast import FeatureStore

OUTPUT = "probability_late"
Columns = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the models must say of some flights, asked about at one moment; n flights."""

    features: Mapping[str, Columns]
    """By variant, what its graph is given; shape [n] each."""
    probability: Mapping[str, NDArray[np.float32]]
    """By variant, the model's answer, shape [n]."""
    steady: NDArray[np.bool_]
    """Whether nothing that any of the models sees changes within the time around the moment, shape [n]."""


def models_in(folder: Path = BUILD / "models") -> dict[str, Path]:
    """Return the model files by variant."""
    return {name: folder / f"{name}.onnx" for name in SERVICES}


def flights_from(time_us: int, count: int, tail: str | None = None) -> pd.DataFrame:
    """Return the ``count`` flights asked about next at a time, as ``flights.raw.load_flights`` gives them.

    Times in it are those of 2013. After the replay months their beginning comes again.

    Args:
        time_us: The time, microseconds since 1970-01-01 UTC.
        count: How many; fewer if there are no more.
        tail: Only those of this plane.
    """
    flights = raw.load_flights()
    if tail is not None:
        flights = flights[flights["tailnum"] == tail]
    asked_us = flights["asked_at"].to_numpy("datetime64[us]").astype(np.int64)
    due_us = (asked_us - in_2013(time_us)) % PERIOD_US
    replayed = (asked_us > START_US) & (asked_us <= START_US + PERIOD_US)
    order = np.lexsort((flights["flight_id"], due_us))
    return flights.iloc[order[replayed[order]][:count]].reset_index(drop=True)


def instance(flight: Mapping[Hashable, Any]) -> dict[str, Any]:
    """Return what a request about a flight brings: keys, and what only the request knows."""
    tail = flight["tailnum"]
    keys = {"tailnum": tail if isinstance(tail, str) else UNKNOWN_TAIL} | {key: flight[key] for key in KEYS[1:]}
    return keys | {name: flight[name] for name in REQUEST_FEATURES}


def expected(
    flights: pd.DataFrame,
    time_us: int,
    *,
    within_us: int = 0,
    models: Mapping[str, Path] | None = None,
    repo: Path = FEATURE_REPO,
) -> Expectation:
    """Compute what the models must say of flights that are asked about at ``time_us``.

    Args:
        flights: Keys and request features.
        time_us: The moment, microseconds since 1970-01-01 UTC.
        within_us: A flight is steady if nothing changes for it between so long before and so long after: what is
            served at any moment of that time, by features published late by no more, is what is expected.
        models: Model files by variant; those of this checkout if left out.
        repo: The built feature repository.
    """
    sessions = {name: ort.InferenceSession(str(path)) for name, path in (models or models_in()).items()}
    contracts = {name: _contract(session, name) for name, session in sessions.items()}
    references = list(dict.fromkeys(f"{f.view}:{f.name}" for contract in contracts.values() for f in contract.features))
    moments = [time_us, time_us - within_us, time_us + within_us]
    with repeated_repo(repo, max(moments)) as store:
        rows = pd.concat([_rows_at(flights, moment) for moment in moments], ignore_index=True)
        joined = join_features(store, references, rows)
        news = _news(store, flights, time_us - within_us, time_us + within_us)
    now, before, after = (joined.iloc[len(flights) * part : len(flights) * (part + 1)] for part in range(3))
    features = {
        name: {f.input: now[f.input].to_numpy().astype(f.dtype) for f in contract.features}
        for name, contract in contracts.items()
    }
    return Expectation(
        features,
        {name: _infer(session, features[name]) for name, session in sessions.items()},
        _same_rows(before, after) & ~news,
    )


def as_json(flights: pd.DataFrame, found: Expectation) -> list[dict[str, Any]]:
    """Return what is expected of each flight: its unit, the request's instance, and by variant answer and features."""
    return [
        {
            "unit": flight["tailnum"] if isinstance(flight["tailnum"], str) else None,
            "instance": instance(flight),
            "steady": bool(found.steady[row]),
            "expected": {
                variant: {OUTPUT: float(found.probability[variant][row]), "features": _features_of(columns, row)}
                for variant, columns in found.features.items()
            },
        }
        for row, flight in enumerate(flights.to_dict("records"))
    ]


@contextmanager
def repeated_repo(repo: Path, until_us: int) -> Iterator[FeatureStore]:
    """Give a feature store whose sources have everything up to a moment with the time at which it happens.

    Args:
        repo: The built feature repository.
        until_us: The moment, microseconds since 1970-01-01 UTC.
    """
    from feast import FeatureStore  # noqa: PLC0415 -- feast takes 2 s to import

    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        shutil.copyfile(repo / "feature_store.yaml", folder / "feature_store.yaml")
        shutil.copyfile(repo / "data" / "registry.db", folder / "data" / "registry.db")
        store = FeatureStore(repo_path=str(folder))
        for view in store.list_feature_views():
            source = pd.read_parquet(repo / "data" / f"{view.name}.parquet")
            repeated(source, until_us).to_parquet(folder / "data" / f"{view.name}.parquet", coerce_timestamps="us")
        yield store


def repeated(source: pd.DataFrame, until_us: int) -> pd.DataFrame:
    """Return the rows of a source up to a moment, with the time at which they happen.

    Of repetitions that are over, only the last is there: it hides those before it.
    """
    times_us = source[EVENT_TIME].to_numpy("datetime64[us]").astype(np.int64)
    parts = []
    for stretch in stretches(None, until_us):
        inside = (times_us <= stretch.until_us) & (times_us > (stretch.after_us or np.iinfo(np.int64).min))
        part = source[inside]
        parts.append(part.assign(**{EVENT_TIME: part[EVENT_TIME] + pd.Timedelta(stretch.shift_us, "us")}))
    return pd.concat(parts, ignore_index=True)


def _features_of(columns: Columns, row: int) -> dict[str, float | None]:
    values = {name: float(column[row]) for name, column in columns.items()}
    return {name: None if np.isnan(value) else value for name, value in values.items()}


def _rows_at(flights: pd.DataFrame, time_us: int) -> pd.DataFrame:
    moment = pd.Timestamp(from_us(time_us)).as_unit("us")
    return flights[[*KEYS, *REQUEST_FEATURES]].assign(**{EVENT_TIME: moment})


def _news(store: FeatureStore, flights: pd.DataFrame, after_us: int, until_us: int) -> NDArray[np.bool_]:
    """Return for which flights any of their keys has a row in ``(after, until]``, shape [n]."""
    found = np.zeros(len(flights), dtype=bool)
    after, until = pd.Timestamp(from_us(after_us)), pd.Timestamp(from_us(until_us))
    for view in store.list_feature_views():
        key = view.entity_columns[0].name
        path = Path(store.repo_path) / "data" / f"{view.name}.parquet"
        window = [(EVENT_TIME, ">", after), (EVENT_TIME, "<=", until)]
        rows = pd.read_parquet(path, columns=[key], filters=window)
        found |= flights[key].isin(set(rows[key])).to_numpy()
    return found


def _same_rows(one: pd.DataFrame, other: pd.DataFrame) -> NDArray[np.bool_]:
    left, right = one.reset_index(drop=True), other.reset_index(drop=True)
    same: NDArray[np.bool_] = ((left == right) | (left.isna() & right.isna())).all(axis="columns").to_numpy()
    return same


def _contract(session: ort.InferenceSession, name: str) -> Contract:
    return Contract.from_metadata(session.get_modelmeta().custom_metadata_map, name)


def _infer(session: ort.InferenceSession, columns: Columns) -> NDArray[np.float32]:
    (output,) = session.run([OUTPUT], {name: column.reshape(-1, 1) for name, column in columns.items()})
    flat: NDArray[np.float32] = np.ravel(output)
    return flat
