"""From what was found to what the model sees: states by row, policies applied, a column at a time.

Compiled once per view. Where all values are there and young enough nothing is done at all; otherwise substitutes
are put into the columns, state by state, and only cells that are odd are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fairlead.contract import Scalar
from fairlead.policy import Action, FeatureState
from fairlead_server.errors import RequestError
from fairlead_server.hydrate.found import Key, ViewRead
from fairlead_server.hydrate.plan import ARRAY_TYPES, FeaturePlan, ViewPlan
from fairlead_server.hydrate.policy import LastGood, visible

_PREPARED_ROWS = 256
"""Columns of a substitute are cut from prepared ones up to so many rows."""
_EVER_US = -(2**63)

States = Sequence[FeatureState]
"""One per key."""


@dataclass(slots=True)
class Resolved:
    """One view, resolved for the keys of a lookup."""

    columns: Sequence[NDArray[Any]]
    """By feature, shape [keys]."""
    states: Sequence[States] | None = None
    """By feature; None if all are PRESENT."""
    errors: dict[int, RequestError] = field(default_factory=dict)
    """Why a key's row is refused, by the key's place: that of the first feature that refuses it."""
    failed: frozenset[int] = frozenset()
    """Places of keys with a STORE_ERROR."""
    event_us: Sequence[int] = ()
    """Event time by key, microseconds since 1970, 0 without a row; empty if no key has one."""


class ViewResolver:
    """Applies the policies of one view."""

    def __init__(self, view: ViewPlan, last_good: LastGood) -> None:
        """Compile a view.

        Args:
            view: What is hydrated.
            last_good: Values kept for LastGood.
        """
        self._view = view
        self._last_good = last_good
        self._substitutes = [{state: _substitute(f, state) for state in FeatureState} for f in view.features]
        self._prepared = {
            state: None if any(s[state] is None for s in self._substitutes) else self._columns_of(state)
            for state in (FeatureState.NOT_FOUND, FeatureState.STORE_ERROR)
        }

    def resolve(self, read: ViewRead | None, keys: Sequence[Key], now_us: int) -> Resolved:
        """Resolve what was read.

        Args:
            read: What was found for ``keys``; None if the store failed.
            keys: Distinct keys.
            now_us: The time, microseconds since 1970.
        """
        if read is None:
            return self._uniform(FeatureState.STORE_ERROR, keys, now_us)
        oldest_us = _EVER_US if self._view.max_age_us is None else now_us - self._view.max_age_us
        if not read.odd and 0 not in read.event_us and min(read.event_us) >= oldest_us:
            self._remember(read, [FeatureState.PRESENT] * len(keys), keys)
            return Resolved(read.columns, event_us=read.event_us)
        if not any(read.event_us):
            return self._uniform(FeatureState.NOT_FOUND, keys, now_us)
        return self._mixed(read, keys, oldest_us, now_us)

    def _uniform(self, state: FeatureState, keys: Sequence[Key], now_us: int) -> Resolved:
        """Resolve keys of which none has a value."""
        rows = len(keys)
        states = [(state,) * rows] * len(self._view.features)
        failed = frozenset(range(rows)) if state is FeatureState.STORE_ERROR else frozenset()
        prepared = self._prepared[state]
        if prepared is not None and rows <= _PREPARED_ROWS:
            return Resolved([column[:rows] for column in prepared], states, {}, failed)
        resolved = Resolved([_empty(f, rows) for f in self._view.features], states, {}, failed)
        self._substitute_all(resolved, keys, now_us)
        return resolved

    def _mixed(self, read: ViewRead, keys: Sequence[Key], oldest_us: int, now_us: int) -> Resolved:
        of_rows = tuple(_of_row(event_us, oldest_us) for event_us in read.event_us)
        states: list[States] = [of_rows] * len(self._view.features)
        for feature, key, state in read.odd:
            of_feature = states[feature]
            if not isinstance(of_feature, list):
                of_feature = states[feature] = list(of_rows)
            of_feature[key] = state
        failed = frozenset(odd.key for odd in read.odd if odd.state is FeatureState.STORE_ERROR)
        resolved = Resolved(read.columns, states, {}, failed, read.event_us)
        self._remember(read, of_rows, keys, states)
        self._substitute_all(resolved, keys, now_us)
        return resolved

    def _substitute_all(self, resolved: Resolved, keys: Sequence[Key], now_us: int) -> None:
        """Put substitutes into the columns, or note the error that stands in for them."""
        places: dict[int, Mapping[FeatureState, list[int]]] = {}
        recalled: dict[int, Mapping[str, Scalar]] = {}
        for i, (column, states) in enumerate(zip(resolved.columns, resolved.states or (), strict=True)):
            of_feature = places.get(id(states))
            if of_feature is None:
                of_feature = places[id(states)] = _places(states)
            feature = self._view.features[i]
            for state, where in of_feature.items():
                substitute = self._substitutes[i][state]
                if substitute is not None:
                    column[where] = substitute
                elif not _keeps_value(feature, state):
                    for j in where:
                        if self._view.keeps_last_good and j not in recalled:
                            recalled[j] = self._last_good.recall(self._view, keys[j], now_us)
                        last_good = recalled.get(j, {}).get(feature.name)
                        try:
                            column[j] = visible(feature, state, None, last_good)
                        except RequestError as error:
                            resolved.errors.setdefault(j, error)

    def _remember(
        self, read: ViewRead, of_rows: States, keys: Sequence[Key], states: Sequence[States] | None = None
    ) -> None:
        """Keep what was read, where any feature may ask for it."""
        if not self._view.keeps_last_good:
            return
        by_feature = states or [of_rows] * len(self._view.features)
        columns = [column.tolist() for column in read.columns]
        for j, (key, event_us) in enumerate(zip(keys, read.event_us, strict=True)):
            if event_us:
                present = {
                    feature.name: values[j]
                    for feature, values, of_feature in zip(self._view.features, columns, by_feature, strict=True)
                    if of_feature[j] is FeatureState.PRESENT
                }
                self._last_good.remember(self._view, key, event_us, present)

    def _columns_of(self, state: FeatureState) -> list[NDArray[Any]]:
        columns = []
        for feature, substitutes in zip(self._view.features, self._substitutes, strict=True):
            column = _empty(feature, _PREPARED_ROWS)
            column[:] = substitutes[state]
            column.flags.writeable = False
            columns.append(column)
        return columns


def _of_row(event_us: int, oldest_us: int) -> FeatureState:
    if not event_us:
        return FeatureState.NOT_FOUND
    return FeatureState.PRESENT if event_us >= oldest_us else FeatureState.STALE


def _places(states: States) -> Mapping[FeatureState, list[int]]:
    """Return where each state but PRESENT is."""
    places: dict[FeatureState, list[int]] = {}
    for j, state in enumerate(states):
        if state is not FeatureState.PRESENT:
            places.setdefault(state, []).append(j)
    return places


def _keeps_value(feature: FeaturePlan, state: FeatureState) -> bool:
    return state is FeatureState.STALE and feature.actions[state] is Action.USE


def _substitute(feature: FeaturePlan, state: FeatureState) -> Scalar | None:
    """Return what stands in for every cell in ``state``; None if that is not one value for all."""
    if state is FeatureState.PRESENT or feature.actions[state] is Action.LAST_GOOD or _keeps_value(feature, state):
        return None
    try:
        scalar = visible(feature, state, None, None)
    except RequestError:
        return None
    with np.errstate(over="ignore"):
        return cast("Scalar", np.array(scalar).astype(ARRAY_TYPES[feature.dtype])[()])


def _empty(feature: FeaturePlan, rows: int) -> NDArray[Any]:
    return np.zeros(rows, ARRAY_TYPES[feature.dtype])
