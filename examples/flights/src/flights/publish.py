"""Publishes features to the online store as simulated time goes on, as a stream of landings would.

A row is published once its event time has come; of a key's rows between two moments only the last is written, in
event-time order, with one write per view. Going back in time is :meth:`Publisher.reset_to`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from numpy.typing import NDArray
from pyarrow import parquet

from fairlead.clock import from_us, to_us
from fairlead.features.sqlite import OnlineRow, WalSqliteOnlineStore
from flights.errors import FlightsError
from flights.features import REPLAY_START
from flights.paths import FEATURE_REPO
from flights.sources import EVENT_TIME

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView


class PublishError(FlightsError):
    """Time does not go back by publishing; the message says what to call instead."""


class Publisher:
    """The one writer of the flights online store during a replay."""

    def __init__(
        self, store: FeatureStore, repo: Path = FEATURE_REPO, *, published_us: int = to_us(REPLAY_START)
    ) -> None:
        """Read the views' sources.

        Args:
            store: The feature store, as ``flights.dataset.open_store`` gives it.
            repo: Folder whose ``data/`` has the sources.
            published_us: Up to when the online store has everything, microseconds since 1970-01-01 UTC.
        """
        self._config = store.config
        self._online = store.provider.online_store
        self._views = [PublishedView.read(view, repo / "data") for view in store.list_feature_views()]
        self._published_us = published_us

    @property
    def published_us(self) -> int:
        """Up to when everything is in the online store, microseconds since 1970-01-01 UTC."""
        return self._published_us

    def publish_until(self, time_us: int) -> None:
        """Commit every feature known by ``time_us`` (microseconds since 1970-01-01 UTC), then return.

        Raises:
            PublishError: ``time_us`` is before what is already published.
        """
        if time_us < self._published_us:
            raise PublishError(
                f"{from_us(time_us)} is before {from_us(self._published_us)}, which is published; call reset_to"
            )
        for view in self._views:
            rows = view.rows_between(self._published_us, time_us)
            if rows:
                self._online.online_write_batch(self._config, view.view, rows, None)
        self._published_us = time_us

    def reset_to(self, time_us: int) -> None:
        """Put the online store into exactly the state of ``time_us``, whatever it holds."""
        state = [(view.view, view.rows_between(None, time_us)) for view in self._views]
        if isinstance(self._online, WalSqliteOnlineStore):
            self._online.replace(self._config, state)
        else:
            views = [view for view, _ in state]
            self._online.teardown(self._config, views, [])
            self._online.update(self._config, [], views, [], [], partial=False)
            for view, rows in state:
                self._online.online_write_batch(self._config, view, rows, None)
        self._published_us = time_us


@dataclass(frozen=True, slots=True)
class PublishedView:
    """A view's source, in event-time order."""

    view: FeatureView
    times_us: NDArray[np.int64]
    keys: NDArray[np.int64]
    """Index into ``entity_keys``."""
    entity_keys: Sequence[EntityKey]
    features: dict[str, NDArray[np.float32]]

    @classmethod
    def read(cls, view: FeatureView, data: Path) -> PublishedView:
        """Read the source of ``view`` from the folder of all sources."""
        table = parquet.read_table(data / f"{view.name}.parquet").sort_by(EVENT_TIME)
        join_key = view.entity_columns[0].name
        key = table[join_key].combine_chunks().dictionary_encode()
        return cls(
            view=view,
            times_us=table[EVENT_TIME].to_numpy().astype("datetime64[us]").astype(np.int64),
            keys=key.indices.to_numpy().astype(np.int64),
            entity_keys=[_entity_key(join_key, value) for value in key.dictionary.to_pylist()],
            features={feature.name: table[feature.name].to_numpy() for feature in view.features},
        )

    def rows_between(self, after_us: int | None, until_us: int) -> list[OnlineRow]:
        """Return each key's last row with ``after < event time <= until`` in event-time order; None is ever since."""
        return [self.row(index) for index in sorted(self.last_between(after_us, until_us).values())]

    def last_between(self, after_us: int | None, until_us: int) -> dict[int, int]:
        """Return the index of each key's last row with ``after < event time <= until``, by key; None is ever since."""
        first = 0 if after_us is None else int(np.searchsorted(self.times_us, after_us, side="right"))
        beyond = int(np.searchsorted(self.times_us, until_us, side="right"))
        return {key: first + place for place, key in enumerate(self.keys[first:beyond].tolist())}

    def row(self, index: int, *, shift_us: int = 0) -> OnlineRow:
        """Return a row as online stores take it, its event time moved by ``shift_us``."""
        values = {name: _value(column[index].item()) for name, column in self.features.items()}
        return self.entity_keys[self.keys[index]], values, from_us(self.times_us[index].item() + shift_us), None


def _entity_key(join_key: str, value: Any) -> EntityKey:
    return EntityKey(join_keys=[join_key], entity_values=[Value(string_val=value)])


def _value(number: float) -> Value:
    return Value() if np.isnan(number) else Value(float_val=number)
