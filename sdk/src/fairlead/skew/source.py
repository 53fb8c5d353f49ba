"""The rows of a view's source, by key and event time: what tells why a value differs.

Feast's point-in-time join gives values without the row that they are of. The rows themselves are read by
``pull_all_from_table_or_query``, which every offline store of Feast's has, and only of views where something differs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pandas as pd

from fairlead.features.service import view_of
from fairlead.skew.cause import Found, SourceRow
from fairlead.skew.errors import SkewError

if TYPE_CHECKING:
    from feast import FeatureStore

Key = tuple[Any, ...]
"""Values of a view's join keys, in the contract's order."""

_EVENT, _CREATED = "fairlead_event_us", "fairlead_created_us"
_UNKNOWN = -(2**63)
"""What a missing time is as a number."""


@dataclass(frozen=True, slots=True)
class SourceView:
    """A stored view of a feature service, and where its rows come from."""

    name: str
    """In the service: its alias if it has one."""
    view: Any
    """Feast's view."""
    join_keys: Mapping[str, str]
    """The view's own names of its keys, by those of a request."""

    @property
    def ttl_us(self) -> int | None:
        """Age beyond which the join takes no row; None for never."""
        seconds = self.view.ttl.total_seconds() if self.view.ttl else 0
        return round(seconds * 1e6) or None

    @property
    def dates_creation(self) -> bool:
        """Whether the source says when a row was created; without that late data looks like push lag."""
        return bool(self.view.batch_source.created_timestamp_column)


@dataclass(frozen=True, slots=True)
class _OfKey:
    event_us: list[int] = field(default_factory=list)
    rows: list[SourceRow] = field(default_factory=list)
    features: list[Mapping[str, Any]] = field(default_factory=list)


class History:
    """Rows of one view."""

    def __init__(self, rows: Mapping[Key, _OfKey], ttl_us: int | None) -> None:
        """Take rows that are sorted by event time, then by creation."""
        self._rows = rows
        self._ttl_us = ttl_us

    def found(self, key: Key, at_us: int) -> Found:
        """Return what a point-in-time join finds."""
        of_key, place = self._place(key, at_us)
        if of_key is None:
            return Found(None, None)
        newest = of_key.rows[place]
        return Found(None if self._too_old(newest, at_us) else newest, newest)

    def values(self, key: Key, at_us: int) -> Mapping[str, Any]:
        """Return the values that a point-in-time join gives, by feature; empty without a row."""
        of_key, place = self._place(key, at_us)
        if of_key is None or self._too_old(of_key.rows[place], at_us):
            return {}
        return of_key.features[place]

    def _place(self, key: Key, at_us: int) -> tuple[_OfKey | None, int]:
        of_key = self._rows.get(key)
        place = -1 if of_key is None else bisect_right(of_key.event_us, at_us) - 1
        return (None, -1) if place < 0 else (of_key, place)

    def _too_old(self, row: SourceRow, at_us: int) -> bool:
        return self._ttl_us is not None and row.event_us < at_us - self._ttl_us


def source_views(store: FeatureStore, service: str, wanted: Collection[str]) -> dict[str, SourceView]:
    """Return the stored views of a feature service that are wanted, by their names in it.

    Raises:
        SkewError: A view is not registered.
    """
    found: dict[str, SourceView] = {}
    for projection in store.get_feature_service(service).feature_view_projections:
        name = projection.name_to_use()
        if name in wanted:
            view = view_of(store, projection)
            own = [store.get_entity(entity).join_key for entity in view.entities if entity != "__dummy"]
            found[name] = SourceView(name, view, {projection.join_key_map.get(key, key): key for key in own})
    missing = sorted(set(wanted) - found.keys())
    if missing:
        raise SkewError(
            f"feature service {service}: has no view {missing[0]} now; compare with the feature repository of the "
            "model's time, or package the model again"
        )
    return found


def read_history(
    store: FeatureStore,
    source: SourceView,
    features: Sequence[str],
    keys: Collection[Key],
    last: datetime,
    *,
    first: datetime | None,
) -> History:
    """Read the rows of a view that may explain something.

    Args:
        store: The feature store.
        source: The view.
        features: Names in the view whose values are needed.
        keys: Of which entities, in the order of ``source.join_keys``.
        last: Event time of the last row that matters.
        first: That of the first; None for the source's first.
    """
    of_source = source.view.batch_source
    mapping: dict[str, str] = of_source.field_mapping or {}
    columns = {name: column for column, name in mapping.items()}
    created = of_source.created_timestamp_column or None
    own_keys = list(source.join_keys.values())
    offline_store: Any = store.provider.offline_store
    job = offline_store.pull_all_from_table_or_query(
        config=store.config,
        data_source=of_source,
        join_key_columns=[columns.get(key, key) for key in own_keys],
        feature_name_columns=[columns.get(name, name) for name in features],
        timestamp_field=of_source.timestamp_field,
        created_timestamp_column=created,
        start_date=first,
        end_date=last,
    )
    frame = job.to_df()
    event_us = _us(frame[of_source.timestamp_field])
    created_us = _us(frame[created]) if created else _UNKNOWN
    frame = frame.rename(columns=mapping).assign(**{_EVENT: event_us, _CREATED: created_us})
    return History(_by_key(frame, own_keys, features, set(keys)), source.ttl_us)


def _by_key(frame: pd.DataFrame, own_keys: Sequence[str], features: Sequence[str], keys: set[Key]) -> dict[Key, _OfKey]:
    found: dict[Key, _OfKey] = {}
    ordered = frame.sort_values([_EVENT, _CREATED], kind="stable")
    columns = [ordered[name].tolist() for name in (*own_keys, _EVENT, _CREATED, *features)]
    for cells in zip(*columns, strict=True):
        key = cells[: len(own_keys)]
        if key not in keys:
            continue
        event_us, created_us, *values = cells[len(own_keys) :]
        of_key = found.setdefault(key, _OfKey())
        of_key.event_us.append(event_us)
        of_key.rows.append(SourceRow(event_us, None if created_us == _UNKNOWN else created_us))
        of_key.features.append(dict(zip(features, values, strict=True)))
    return found


def _us(times: pd.Series[Any]) -> pd.Series[int]:
    return pd.to_datetime(times, utc=True).astype("datetime64[us, UTC]").astype("int64")
