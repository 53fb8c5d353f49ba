"""A flights model in a predictor of its own, over a copied feature repository, at any moment of the year."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
import pandas as pd
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from fairlead.clock import ReplayClock, ReplayClockWriter, to_us
from fairlead.contract import Contract
from fairlead.policy import FeatureState, Hydration
from fairlead_server.hydrate.hydrator import Hydrated
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.load import load
from fairlead_server.predict.predictor import Predictor
from fairlead_server.predict.settings import PredictorSettings
from flights.dataset import KEYS, REQUEST_FEATURES, join_features, open_store
from flights.sources import EVENT_TIME
from flights.traffic import UNKNOWN_TAIL

if TYPE_CHECKING:
    from flights.publish import Publisher

Columns = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class World:
    """A feature repository whose online store and clock move together."""

    repo: Path
    publisher: Publisher
    clock: ReplayClockWriter

    @classmethod
    def at(cls, repo: Path, start: pd.Timestamp) -> World:
        """Take a copied repository to a moment."""
        from flights.publish import Publisher  # noqa: PLC0415 -- feast takes 2 s to import

        store = open_store(repo)
        views = store.list_feature_views()
        store.provider.online_store.update(store.config, [], views, [], [], partial=False)
        publisher = Publisher(store, repo)
        publisher.reset_to(to_us(start))
        return cls(repo, publisher, ReplayClockWriter(repo / "clock", to_us(start)))

    @property
    def clock_file(self) -> Path:
        return self.repo / "clock"

    def move_to(self, moment: pd.Timestamp) -> None:
        """Publish what is known by then, then move the clock."""
        self.publisher.publish_until(to_us(moment))
        self.clock.set_us(to_us(moment))

    @asynccontextmanager
    async def predictor(self, model: Path) -> AsyncIterator[Predictor]:
        settings = PredictorSettings(
            model=model, feature_store=self.repo, hydration=Hydration(deadline_s=10), variant="v", revision="r"
        )
        clock = ReplayClock(self.clock_file)
        predictor = await load(settings, clock=clock, metrics=ServerMetrics(CollectorRegistry()))
        try:
            yield predictor
        finally:
            await predictor.close()


async def hydrated(predictor: Predictor, flights: pd.DataFrame) -> Hydrated:
    """Hydrate flights as requests of the present moment."""
    assert predictor.connection is not None
    return await predictor.connection.hydrator.hydrate(keys_of(flights), len(flights))


def keys_of(flights: pd.DataFrame) -> dict[str, NDArray[np.generic]]:
    """Return what requests for flights bring, by name, shape [rows]."""
    texts = {key: flights[key].fillna(UNKNOWN_TAIL).to_numpy(dtype=object) for key in KEYS}
    return texts | {name: flights[name].to_numpy() for name in REQUEST_FEATURES}


def offline(repo: Path, contract: Contract, flights: pd.DataFrame) -> Columns:
    """Return the point-in-time features of flights as the graph takes them, by Feast's own join."""
    rows = flights[[*KEYS, *REQUEST_FEATURES]].assign(**{EVENT_TIME: flights["asked_at"]})
    references = [f"{feature.view}:{feature.name}" for feature in contract.features]
    joined = join_features(open_store(repo), references, rows)
    return {f.input: joined[f.input].to_numpy().astype(f.dtype) for f in contract.features}


def infer(model: Path, columns: Columns) -> NDArray[np.float32]:
    """Run a model file on columns of shape [rows], by ONNX Runtime alone."""
    session = ort.InferenceSession(str(model))
    (output,) = session.run(["probability_late"], {name: column.reshape(-1, 1) for name, column in columns.items()})
    flat: NDArray[np.float32] = np.ravel(output)
    return flat


def differing(ours: Columns, theirs: Columns) -> list[str]:
    """Return the names of columns that differ in any row; NaN equals NaN."""
    return [name for name in theirs if not np.array_equal(ours[name], theirs[name], equal_nan=True)]


def share_present(states: Mapping[str, tuple[FeatureState, ...]]) -> float:
    """Return the part of feature values that were PRESENT."""
    seen = [state for column in states.values() for state in column]
    return seen.count(FeatureState.PRESENT) / len(seen)
