"""Entity keys and request features in, the graph's inputs out: look up, tell states, apply policies, make arrays."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairlead.clock import Clock
from fairlead.contract import Scalar
from fairlead.policy import FeatureState
from fairlead_server.errors import InferenceFailed, RequestError
from fairlead_server.hydrate.generic import GenericReader, Rows
from fairlead_server.hydrate.plan import ARRAY_TYPES, FeaturePlan, HydrationPlan, OnDemandPlan, ViewPlan
from fairlead_server.hydrate.policy import Key, LastGood, visible
from fairlead_server.hydrate.source import OnDemandFunction
from fairlead_server.hydrate.states import Found, StoredRow, find
from fairlead_server.metrics import ModelMetrics

_KEYS_PER_TURN = 256
"""After so many keys of a large request the event loop serves others."""

Columns = Mapping[str, NDArray[np.generic]]
"""Arrays of shape [rows] by name."""


@dataclass(frozen=True, slots=True)
class Hydrated:
    """What the store and the on-demand views gave for one request."""

    columns: Columns
    """The graph's inputs by name, shape [rows], of the contract's types."""
    states: Mapping[str, tuple[FeatureState, ...]]
    """One state per row for each stored feature, by input name."""
    degraded: bool
    """Whether any of them is STORE_ERROR."""


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """What an opened feature store gives a hydrator."""

    reader: GenericReader
    functions: Mapping[str, OnDemandFunction]
    """By on-demand view."""


class Hydrator:
    """Hydrates requests of one model."""

    def __init__(
        self, plan: HydrationPlan, access: StoreAccess | None, clock: Clock, last_good: LastGood, metrics: ModelMetrics
    ) -> None:
        """Make the hydrator.

        Args:
            plan: What to hydrate.
            access: The opened feature store; None while it is away, and everything is STORE_ERROR.
            clock: What ages are measured by.
            last_good: Values kept for LastGood; shared between a hydrator and its successor.
            metrics: Where states are counted.
        """
        self._plan = plan
        self._access = access
        self._clock = clock
        self._last_good = last_good
        self._metrics = metrics

    async def hydrate(self, inputs: Columns, rows: int) -> Hydrated:
        """Find all features for a request.

        Args:
            inputs: Join keys and request features by name, shape [rows], valid and complete.
            rows: Number of rows.

        Raises:
            FeatureRejected: A feature's state is rejected by its policy.
            StoreUnavailable: The same because the store failed.
            InferenceFailed: An on-demand view failed.
        """
        keys = {view.name: _keys(view, inputs, rows) for view in self._plan.views}
        found = await self._read(keys)
        columns: dict[str, NDArray[np.generic]] = {}
        states: dict[str, tuple[FeatureState, ...]] = {}
        for view in self._plan.views:
            await self._resolve(view, keys[view.name], found.get(view.name), columns, states)
        for on_demand in self._plan.on_demand:
            columns |= self._compute(on_demand, inputs, rows)
        degraded = any(FeatureState.STORE_ERROR in of_feature for of_feature in states.values())
        return Hydrated(columns, states, degraded=degraded or (self._access is None and bool(self._plan.on_demand)))

    async def _read(self, keys: Mapping[str, Sequence[Key]]) -> Rows:
        if self._access is None or not keys:
            return {}
        lookup = {view: list(dict.fromkeys(of_view)) for view, of_view in keys.items()}
        return await self._access.reader.read(lookup) or {}

    async def _resolve(
        self,
        view: ViewPlan,
        keys: Sequence[Key],
        rows: Mapping[Key, StoredRow] | None,
        columns: dict[str, NDArray[np.generic]],
        states: dict[str, tuple[FeatureState, ...]],
    ) -> None:
        """Add the view's columns and states; each distinct key is looked at once."""
        place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        order = [place[key] for key in keys]
        found, kept = await self._find(view, list(place), rows)
        counts: Counter[FeatureState] = Counter()
        for i, feature in enumerate(view.features):
            cells = [one.cells[i] for one in found]
            values = [
                value if state is FeatureState.PRESENT else visible(feature, state, value, last.get(feature.name))
                for (state, value), last in zip(cells, kept, strict=True)
            ]
            columns[feature.input] = _array(feature, (values[j] for j in order), len(order))
            states[feature.input] = of_rows = tuple([cells[j][0] for j in order])
            counts.update(of_rows)
            if len(order) > _KEYS_PER_TURN:
                await asyncio.sleep(0)
        for state, amount in counts.items():
            self._metrics.count_features(view.name, state, amount)

    async def _find(
        self, view: ViewPlan, keys: Sequence[Key], rows: Mapping[Key, StoredRow] | None
    ) -> tuple[list[Found], list[Mapping[str, Scalar]]]:
        """Tell the states of distinct keys, and what is remembered of them, in the order of the keys."""
        now_us = self._clock.now_us()
        found: list[Found] = []
        kept: list[Mapping[str, Scalar]] = []
        for i, key in enumerate(keys, start=1):
            one = find(view.features, rows[key] if rows else None, view.max_age_us, now_us)
            found.append(one)
            kept.append(self._keep(view, key, one, now_us))
            if i % _KEYS_PER_TURN == 0:
                await asyncio.sleep(0)
        return found, kept

    def _keep(self, view: ViewPlan, key: Key, found: Found, now_us: int) -> Mapping[str, Scalar]:
        """Remember what was read, and return what was remembered before, where any feature may ask for it."""
        if not view.keeps_last_good:
            return {}
        if found.event_us is not None:
            present = {
                feature.name: value
                for feature, (state, value) in zip(view.features, found.cells, strict=True)
                if state is FeatureState.PRESENT and value is not None
            }
            self._last_good.remember(view, key, found.event_us, present)
        return self._last_good.recall(view, key, now_us)

    def _compute(self, view: OnDemandPlan, inputs: Columns, rows: int) -> Columns:
        if self._access is None:
            return {
                f.input: _array(f, [visible(f, FeatureState.STORE_ERROR, None, None)] * rows, rows)
                for f in view.features
            }
        function = self._access.functions[view.name]
        try:
            computed = _call(function, {name: inputs[name].tolist() for name in function.inputs}, rows)
            return {f.input: _array(f, (_given(f, v) for v in _column(computed, f, rows)), rows) for f in view.features}
        except RequestError:
            raise
        except Exception as error:
            raise InferenceFailed(
                f"on-demand view {view.name} failed with {type(error).__name__} on this request's values"
            ) from error


def _keys(view: ViewPlan, inputs: Columns, rows: int) -> list[Key]:
    if not view.join_keys:
        return [()] * rows
    return list(zip(*(inputs[name].tolist() for name in view.join_keys), strict=True))


def _call(function: OnDemandFunction, inputs: Mapping[str, list[Any]], rows: int) -> Mapping[str, Iterable[Any]]:
    if not function.by_row:
        return function.call(dict(inputs))
    answers = [function.call({name: values[i] for name, values in inputs.items()}) for i in range(rows)]
    return {name: [answer[name] for answer in answers] for name in answers[0]}


def _column(computed: Mapping[str, Iterable[Any]], feature: FeaturePlan, rows: int) -> list[Any]:
    values = list(computed[feature.name])
    if len(values) != rows:
        raise ValueError(f"{feature.name} has {len(values)} values for {rows} rows")
    return values


def _given(feature: FeaturePlan, value: Any) -> Scalar:
    return visible(feature, FeatureState.NULL, None, None) if value is None else value


def _array(feature: FeaturePlan, values: Iterable[Any], rows: int) -> NDArray[np.generic]:
    """Make the graph's input; here, and nowhere else, numbers are narrowed to the contract's type."""
    if feature.dtype != "float32":
        return np.fromiter(values, ARRAY_TYPES[feature.dtype], rows)
    with np.errstate(over="ignore"):
        return np.fromiter(values, np.float32, rows)
