"""Compares the rows of a log with point-in-time features, and says of every difference why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairlead import prediction_log as form
from fairlead.contract import Contract, Feature
from fairlead.features.service import FeatureServiceError, describe
from fairlead.policy import FeatureState
from fairlead.skew.cause import Cause, Found, Served, cause_of
from fairlead.skew.compare import Mask, differs, substituted
from fairlead.skew.errors import SkewError, said
from fairlead.skew.log import LoggedModel
from fairlead.skew.replay import Replayed, replay
from fairlead.skew.report import Example, FeatureSkew, ModelSkew
from fairlead.skew.source import History, Key, SourceView, read_history, source_views

if TYPE_CHECKING:
    from feast import FeatureStore

Times = NDArray[np.int64]
"""Microseconds since 1970, shape [rows]."""

_NAT = np.iinfo(np.int64).min


def measure(store: FeatureStore, logged: LoggedModel, *, tolerance: float, advance: Callable[[int], None]) -> ModelSkew:
    """Compare what a model was shown with what it would have been trained on.

    Args:
        store: Where the point-in-time features come from.
        logged: What was served.
        tolerance: How far numbers may be apart, as a share of the larger one.
        advance: Told of rows that were replayed.

    Raises:
        SkewError: The store does not have the model's features, or fails.
    """
    contract = logged.contract
    try:
        registered = describe(store, contract.feature_service)
    except FeatureServiceError as error:
        raise SkewError(str(error)) from error
    comparison = _Comparison(store, logged, replay(store, contract, logged.rows, advance), tolerance)
    found = {feature.feature: feature for feature in (*comparison.stored(), *comparison.on_demand())}
    return ModelSkew(
        model=str(logged.rows[form.MODEL].iloc[0]),
        version=contract.version,
        variants=sorted({str(variant) for variant in logged.rows[form.VARIANT].unique()}),
        feature_service=contract.feature_service,
        first=_shown(logged.rows[form.SERVED_AT].iloc[0]),
        last=_shown(logged.rows[form.SERVED_AT].iloc[-1]),
        rows=len(logged.rows),
        logged=logged.logged,
        features=[found[feature.input] for feature in contract.features],
        notes=[*_notes(logged, contract, registered.fingerprint), *comparison.notes()],
    )


class _Comparison:
    """One model's rows, beside what was joined to them."""

    def __init__(self, store: FeatureStore, logged: LoggedModel, replayed: Replayed, tolerance: float) -> None:
        self._store = store
        self._logged = logged
        self._rows = logged.rows
        self._joined = replayed.features
        self._present = replayed.present
        self._computed = replayed.computed
        self._tolerance = tolerance
        self._at_us = _us(logged.rows[form.SERVED_AT])
        self._undated: list[str] = []

    def stored(self) -> Iterator[FeatureSkew]:
        """Compare the features that the online store has."""
        contract = self._logged.contract
        features = sorted((f for f in contract.features if not f.on_demand), key=lambda f: f.view)
        views = source_views(self._store, contract.feature_service, {f.view for f in features})
        for view, of_view in groupby(features, key=lambda f: f.view):
            yield from self._view(views[view], list(of_view))

    def on_demand(self) -> Iterator[FeatureSkew]:
        """Compare the features that are computed of what a request brings."""
        nowhere = np.zeros(len(self._rows), bool)
        for feature in self._logged.contract.features:
            if feature.on_demand:
                differing = self._differs(feature, nowhere, self._joined[feature.input]) & self._computed
                causes = dict.fromkeys(np.flatnonzero(differing).tolist(), Cause.VALUES_DIFFER)
                yield self._skew(feature, int(self._computed.sum()), causes, self._joined[feature.input])

    def notes(self) -> Iterator[str]:
        """Say what a reader must know; once everything was compared."""
        left_out = len(self._present) - int(self._present.sum())
        if left_out:
            yield (
                f"{left_out} rows are left out by the offline store, as Feast's file store does where a view is older "
                "than its ttl; what they lack was read from the sources, on-demand features aside"
            )
        if self._undated:
            yield (
                f"{', '.join(self._undated)}: the source has no created_timestamp_column, so late data counts as push "
                "lag"
            )

    def _view(self, source: SourceView, features: Sequence[Feature]) -> Iterator[FeatureSkew]:
        without = {f.input: substituted(f, self._logged.hydration, self._states(f)) for f in features}
        joined = {f.input: self._joined[f.input] for f in features}
        differing = {f.input: self._differs(f, without[f.input], joined[f.input]) for f in features}
        needed = np.logical_or.reduce([*differing.values(), ~self._present])
        if not needed.any():
            yield from (self._skew(f, len(self._rows), {}, joined[f.input]) for f in features)
            return
        keys = self._keys(source)
        event_us = _us(self._rows[form.EVENT_TIME + source.name])
        history = self._history(source, features, keys, needed, event_us)
        if (~self._present).any():
            joined = {f.input: self._filled(f, joined[f.input], history, keys) for f in features}
            differing = {f.input: self._differs(f, without[f.input], joined[f.input]) for f in features}
        found: dict[int, Found] = {
            place: history.found(keys[place], int(self._at_us[place])) for place in np.flatnonzero(needed).tolist()
        }
        for feature in features:
            causes = self._causes(feature, differing[feature.input], event_us, found)
            if Cause.PUSH_LAG in causes.values() and not source.dates_creation and source.name not in self._undated:
                self._undated.append(source.name)
            yield self._skew(feature, len(self._rows), causes, joined[feature.input])

    def _differs(self, feature: Feature, without: Mask, joined: pd.Series[Any]) -> Mask:
        return differs(feature, self._rows[form.FEATURE + feature.input], without, joined, self._tolerance)

    def _states(self, feature: Feature) -> pd.Series[Any]:
        return self._rows[form.STATE + feature.input].astype(object)

    def _keys(self, source: SourceView) -> list[Key]:
        if not source.join_keys:
            return [()] * len(self._rows)
        return list(zip(*(self._rows[form.KEY + name].tolist() for name in source.join_keys), strict=True))

    def _history(
        self, source: SourceView, features: Sequence[Feature], keys: Sequence[Key], needed: Mask, event_us: Times
    ) -> History:
        at_us = self._at_us[needed]
        first: datetime | None = None
        if source.ttl_us is not None:
            events_us = event_us[needed & (event_us != _NAT)]
            oldest_us = min([int(at_us.min()) - source.ttl_us, *events_us.tolist()])
            first = _moment(oldest_us)
        wanted = {keys[place] for place in np.flatnonzero(needed).tolist()}
        names = [feature.name for feature in features]
        try:
            return read_history(self._store, source, names, wanted, _moment(int(at_us.max())), first=first)
        except Exception as error:
            raise SkewError(f"the source of {source.name} cannot be read ({said(error)})") from error

    def _filled(
        self, feature: Feature, joined: pd.Series[Any], history: History, keys: Sequence[Key]
    ) -> pd.Series[Any]:
        """Return what was joined, and of rows that the offline store has left out what their sources have."""
        filled = joined.astype(object)
        for place in np.flatnonzero(~self._present).tolist():
            filled.iloc[place] = history.values(keys[place], int(self._at_us[place])).get(feature.name)
        return filled

    def _causes(
        self, feature: Feature, differing: Mask, event_us: Times, found: Mapping[int, Found]
    ) -> dict[int, Cause]:
        states = self._states(feature)
        causes: dict[int, Cause] = {}
        for place in np.flatnonzero(differing).tolist():
            at = None if event_us[place] == _NAT else int(event_us[place])
            served = Served(FeatureState(states.iloc[place]), int(self._at_us[place]), at)
            causes[place] = cause_of(served, found[place])
        return causes

    def _skew(
        self, feature: Feature, compared: int, causes: Mapping[int, Cause], joined: pd.Series[Any]
    ) -> FeatureSkew:
        example: Example | None = None
        if causes:
            place = min(causes)
            seen = self._rows[form.FEATURE + feature.input].iloc[place]
            at = _shown(self._rows[form.SERVED_AT].iloc[place])
            example = Example(at, _plain(seen), _plain(joined.iloc[place]), causes[place])
        return FeatureSkew(feature.input, compared, Counter(causes.values()), example)


def _notes(logged: LoggedModel, contract: Contract, fingerprint: str) -> Iterator[str]:
    if len(logged.rows) < logged.logged:
        yield f"{len(logged.rows)} of {logged.logged} rows were compared, evenly over the log; --rows takes more"
    if fingerprint != contract.fingerprint:
        yield f"feature service {contract.feature_service} has changed since the model was packaged"


def _us(times: pd.Series[Any]) -> Times:
    return times.astype("datetime64[us, UTC]").to_numpy("datetime64[us]").astype(np.int64)


def _moment(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


def _shown(moment: pd.Timestamp) -> str:
    return moment.to_pydatetime().isoformat()


def _plain(value: Any) -> Any:
    """Return a value that JSON has: a missing one is None, an infinite one its name."""
    if pd.isna(value):
        return None
    plain = value.item() if isinstance(value, np.generic) else value
    return str(plain) if isinstance(plain, float) and math.isinf(plain) else plain
