"""Training sets: for every flight, its features as of the moment its prediction would have been asked for.

The join is Feast's point-in-time join, made in chunks of time so that its memory stays bounded. All flights of the
year are joined once with the features of both feature services, kept as parquet under the digest of what they were
made from, and read from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fairlead.features.service import ServiceFeature, describe
from flights import raw, stamps
from flights.errors import FlightsError
from flights.features import FEATURE_SERVICES, built_digest
from flights.paths import BUILD
from flights.sources import EVENT_TIME
from flights.store import open_store, quiet

__all__ = ["DatasetError", "join_features", "open_store", "training_set"]

if TYPE_CHECKING:
    from feast import FeatureStore

CHUNK = timedelta(days=28)
"""Entity rows of this much time are joined at once."""

KEYS = ("tailnum", "origin", "dest", "carrier")
REQUEST_FEATURES = ("hour", "weekday", "distance")

_ABOUT = ["flight_id", *KEYS, "asked_at", "landed_at", "late"]


class DatasetError(FlightsError):
    """A training set cannot be built or is not what was asked for; the message says what to do."""


def training_set(
    service: str, start: datetime, end: datetime, *, store: FeatureStore | None = None, labelled: bool = True
) -> pd.DataFrame:
    """Return the flights asked for in ``[start, end)`` with the features of a feature service.

    Args:
        service: Name of the feature service.
        start: First moment, aware.
        end: End, aware, excluded.
        store: The feature store; None opens the example's own.
        labelled: Leave out flights that never landed and so have no label.

    Returns:
        One row per flight in the file's order. Columns flight_id, tailnum, origin, dest, carrier, asked_at, landed_at,
        late (1 or 0; int64, or float64 with NaN for flights without label), then the features by full name
        (``view__feature``), in the service's order and with its types; a missing value is NaN.

    Raises:
        DatasetError: The features have not been built.
    """
    store = store or open_store()
    file = _all_flights(store)
    wanted = [feature.input for feature in describe(store, service).features]
    table = pd.read_parquet(
        file,
        columns=[*_ABOUT, *wanted],
        filters=[("asked_at", ">=", pd.Timestamp(start)), ("asked_at", "<", pd.Timestamp(end))],
    )
    if not labelled:
        return table
    known = table[table["late"].notna()].reset_index(drop=True)
    return known.assign(late=known["late"].astype("int64"))


def join_features(
    store: FeatureStore,
    features: Sequence[str],
    rows: pd.DataFrame,
    *,
    chunk: timedelta = CHUNK,
    on_progress: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Join features to rows as of each row's time, with Feast's point-in-time join, in chunks of time.

    Args:
        store: The feature store.
        features: References, ``view:feature``.
        rows: Join keys, request features and the time in column ``event_timestamp`` (aware).
        chunk: Time that one join spans.
        on_progress: Called with the number of rows joined, after each chunk.

    Returns:
        The features by full name; as many rows as given, in the same order and with the same index.

    Raises:
        DatasetError: Feast gave back other rows than it was given.
    """
    joined = []
    for part in _chunks(rows.assign(_row=range(len(rows))), chunk):
        joined.append(_join_chunk(store, features, part))
        if on_progress:
            on_progress(len(part))
    if not joined:
        raise DatasetError("no rows to join features to")
    ordered: pd.DataFrame = pd.concat(joined).sort_index()
    return ordered.set_axis(rows.index)


def _chunks(rows: pd.DataFrame, chunk: timedelta) -> Iterator[pd.DataFrame]:
    cell = (rows[EVENT_TIME] - rows[EVENT_TIME].min()) // chunk
    for _, part in rows.groupby(cell, sort=True):
        yield part


def _join_chunk(store: FeatureStore, features: Sequence[str], part: pd.DataFrame) -> pd.DataFrame:
    with quiet():
        joined = store.get_historical_features(part, list(features), full_feature_names=True).to_df()
    joined = joined.set_index("_row").sort_index()
    if len(joined) != len(part) or (joined.index != part["_row"].sort_values()).any():
        raise DatasetError(f"{len(part)} entity rows from {part[EVENT_TIME].min()} on came back as {len(joined)}")
    named: pd.DataFrame = joined[[reference.replace(":", "__") for reference in features]]
    return named


def _all_flights(store: FeatureStore) -> Path:
    """Return the file of all flights with all features, after building it if it is not there."""
    path = BUILD / "dataset" / f"{_digest(store).removeprefix('sha256:')[:16]}.parquet"
    if not path.exists():
        table = _join_all(store)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        table.to_parquet(fresh, index=False, coerce_timestamps="us")
        fresh.replace(path)
        for other in path.parent.glob("*.parquet"):
            if other != path:
                other.unlink(missing_ok=True)
    return path


def _join_all(store: FeatureStore) -> pd.DataFrame:
    from rich.progress import Progress  # noqa: PLC0415 -- needed once per build

    flights = raw.load_flights()
    rows = flights[[*KEYS, *REQUEST_FEATURES]].assign(**{EVENT_TIME: flights["asked_at"]})
    features = [f"{feature.view}:{feature.name}" for feature in _all_features(store)]
    with Progress() as progress:
        task = progress.add_task("Joining features", total=len(rows))
        joined = join_features(store, features, rows, on_progress=lambda done: progress.advance(task, done))
    return pd.concat([flights[_ABOUT], joined], axis="columns")


def _all_features(store: FeatureStore) -> list[ServiceFeature]:
    found: dict[str, ServiceFeature] = {}
    for service in FEATURE_SERVICES:
        found |= {feature.input: feature for feature in describe(store, service).features}
    return list(found.values())


def _digest(store: FeatureStore) -> str:
    repo = Path(store.repo_path)
    sources, registered = built_digest("sources", repo), built_digest("store", repo)
    if sources is None or registered is None:
        raise DatasetError(f"{repo}: the features are not built from what is there now; run `make features`")
    code: list[Any] = stamps.file_digests([Path(__file__)]) + stamps.versions("feast", "duckdb", "ibis-framework")
    return stamps.digest_of([sources, *code, *(describe(store, service).fingerprint for service in FEATURE_SERVICES)])
