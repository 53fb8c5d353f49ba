"""Entity keys and request features in, the graph's inputs out: look up, apply policies, cut into requests."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairlead.clock import Clock
from fairlead.contract import Scalar
from fairlead.policy import FeatureState
from fairlead_server.errors import InferenceFailed, RequestError
from fairlead_server.hydrate.found import Found, JoinKeys, Key
from fairlead_server.hydrate.part import Part
from fairlead_server.hydrate.plan import FeaturePlan, HydrationPlan, OnDemandPlan, ViewPlan
from fairlead_server.hydrate.policy import LastGood, visible
from fairlead_server.hydrate.reader import Asked, BackEnd, Reader, Together
from fairlead_server.hydrate.source import OnDemandFunction
from fairlead_server.hydrate.states import array_of
from fairlead_server.hydrate.substitutes import Resolved, ViewResolver
from fairlead_server.metrics import ModelMetrics

_LOG = logging.getLogger(__name__)
_ROWS_PER_TURN = 512
"""More rows than these are resolved bit by bit, so that the event loop serves others."""

Columns = Mapping[str, NDArray[np.generic]]
"""Arrays of shape [rows] by name."""


@dataclass(frozen=True, slots=True)
class Hydrated:
    """What the store and the on-demand views gave for one request."""

    columns: Columns
    """The graph's inputs by name, shape [rows], of the contract's types; not to be written to."""
    states: Mapping[str, Sequence[FeatureState]]
    """One state per row for each stored feature, by input name."""
    degraded: bool
    """Whether any of them is STORE_ERROR."""
    at_us: int
    """When they were looked up, microseconds since 1970: what ages were measured at."""
    event_us: Callable[[], Mapping[str, Sequence[int]]]
    """Tells event times by view, one per row, microseconds since 1970; 0 where there is none, empty if not read."""

    def ages_s(self, rows: int) -> Mapping[str, Sequence[float | None]]:
        """Return ages by view, one per row, seconds; None where no row was read."""
        times = self.event_us()
        return {
            view: [(self.at_us - us) / 1e6 if us else None for us in of_view] if of_view else (None,) * rows
            for view, of_view in times.items()
        }


Done = Callable[[Hydrated | RequestError], None]
"""Told what became of a request."""


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """What an opened feature store gives a hydrator."""

    back_end: BackEnd
    functions: Mapping[str, OnDemandFunction]
    """By on-demand view."""


class _Request(NamedTuple):
    inputs: Columns
    done: Done


class Hydrator:
    """Hydrates requests of one model."""

    def __init__(
        self,
        plan: HydrationPlan,
        access: StoreAccess | None,
        clock: Clock,
        last_good: LastGood,
        metrics: ModelMetrics,
        *,
        deadline_s: float,
    ) -> None:
        """Make the hydrator.

        Args:
            plan: What to hydrate.
            access: The opened feature store; None while it is away, and everything is STORE_ERROR.
            clock: What ages are measured by.
            last_good: Values kept for LastGood; shared between a hydrator and its successor.
            metrics: Where states are counted.
            deadline_s: Longest wait of a request for the store, seconds.
        """
        self._plan = plan
        self._access = access
        self._clock = clock
        self._metrics = metrics
        self._views = [_View(view, ViewResolver(view, last_good), metrics) for view in plan.views]
        self._inputs = tuple(name for view in self._views for name in view.inputs)
        self._joins = tuple(dict.fromkeys(view.join_keys for view in plan.views))
        self._reader: Reader | None = None
        if access is not None:
            self._reader = Reader(access.back_end, self._settle, deadline_s=deadline_s, metrics=metrics)
        self._slow: set[asyncio.Task[None]] = set()

    @property
    def failing(self) -> bool:
        """Whether the store is not there, or did not answer the last read in time."""
        return self._reader is None or self._reader.failing

    @property
    def circuit_open(self) -> bool:
        """Whether the store is left alone at the moment."""
        return self._reader is not None and self._reader.circuit_open

    async def answers(self) -> bool:
        """Whether every view of the store can be read now."""
        return self._reader is not None and await self._reader.answers()

    async def drain(self) -> None:
        """Wait until nobody waits for the store."""
        if self._reader is not None:
            await self._reader.drain()

    async def close(self) -> None:
        """Stop reading, and let go of the store's connections."""
        if self._reader is not None:
            await self._reader.close()

    def submit(self, inputs: Columns, rows: int, done: Done) -> None:
        """Find all features for a request; requests of one turn of the event loop share a read.

        Args:
            inputs: Join keys and request features by name, shape [rows], valid and complete.
            rows: Number of rows.
            done: Called exactly once, in a later turn of the event loop: with what was found, or with FeatureRejected
                (a feature's state is rejected by its policy), StoreUnavailable (the same because the store failed) or
                InferenceFailed (an on-demand view failed). One request's error is never another's.
        """
        keys = {names: _keys(names, inputs, rows) for names in self._joins}
        asked = Asked(rows, keys, _Request(inputs, done))
        if self._reader is not None and keys:
            self._reader.submit(asked)
        else:
            asyncio.get_running_loop().call_soon(self._settle, [asked], Together.of([asked]), None)

    async def hydrate(self, inputs: Columns, rows: int) -> Hydrated:
        """Find all features for a request; see :meth:`submit`.

        Raises:
            RequestError: What ``submit`` would have told.
        """
        future: asyncio.Future[Hydrated | RequestError] = asyncio.get_running_loop().create_future()
        self.submit(inputs, rows, lambda outcome: None if future.done() else future.set_result(outcome))
        outcome = await future
        if isinstance(outcome, RequestError):
            raise outcome
        return outcome

    def _settle(self, asked: Sequence[Asked], together: Together, found: Found | None) -> None:
        """Answer requests of what was found for them."""
        steps = self._steps(asked, together, found)
        if (asked[0].rows if len(asked) == 1 else sum(one.rows for one in asked)) > _ROWS_PER_TURN:
            task = asyncio.get_running_loop().create_task(self._take(steps, asked))
            self._slow.add(task)
            task.add_done_callback(self._slow.discard)
            return
        try:
            for _ in steps:
                pass
        except Exception as error:  # noqa: BLE001 -- nobody may wait for ever; it is logged and told
            _fail(asked, error)

    async def _take(self, steps: Iterator[None], asked: Sequence[Asked]) -> None:
        """Take one step per turn of the event loop."""
        try:
            for _ in steps:
                await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001 -- nobody may wait for ever; it is logged and told
            _fail(asked, error)

    def _steps(self, asked: Sequence[Asked], together: Together, found: Found | None) -> Iterator[None]:
        now_us = self._clock.now_us()
        resolved: list[tuple[_View, Resolved, Sequence[int] | None]] = []
        for view in self._views:
            names = view.plan.join_keys
            read = found[view.plan.name] if found else None
            if read is not None:
                view.ages.add(_of_rows(read.event_us, together.places[names]), now_us)
            of_view = view.resolver.resolve(read, together.lookup[names], now_us)
            resolved.append((view, of_view, together.places[names]))
            yield
        start, alone = 0, len(asked) == 1
        loop = asyncio.get_running_loop()
        for one in asked:
            if not one.settled:
                one.settled = True
                loop.call_soon(one.request.done, self._outcome(one, start, resolved, now_us, alone=alone))
            start += one.rows
            yield

    def _outcome(
        self,
        asked: Asked,
        start: int,
        resolved: Sequence[tuple[_View, Resolved, Sequence[int] | None]],
        now_us: int,
        *,
        alone: bool,
    ) -> Hydrated | RequestError:
        """Cut one request out of what was resolved for several."""
        columns: dict[str, NDArray[np.generic]] = {}
        states: dict[str, Sequence[FeatureState]] = dict.fromkeys(self._inputs, (FeatureState.PRESENT,) * asked.rows)
        error: RequestError | None = None
        degraded = self._access is None and bool(self._plan.on_demand)
        for view, of_view, places in resolved:
            if of_view.states is None and alone and places is None:
                columns.update(zip(view.inputs, of_view.columns, strict=True))
                view.present.add(asked.rows * len(view.inputs))
                continue
            part = Part(start, asked.rows, places)
            columns.update(zip(view.inputs, part.columns(of_view.columns), strict=True))
            if of_view.states is None:
                view.present.add(asked.rows * len(view.inputs))
                continue
            of_rows = part.states(of_view.states)
            states.update(zip(view.inputs, of_rows, strict=True))
            self._count(view, of_rows)
            error = error or part.first_error(of_view.errors)
            degraded = degraded or not of_view.failed.isdisjoint(part.keys)
        try:
            for on_demand in self._plan.on_demand if error is None else ():
                columns |= self._compute(on_demand, asked.request.inputs, asked.rows)
        except RequestError as failed:
            return failed
        if error is not None:
            return error
        event_us = partial(_event_us, start, asked.rows, resolved)
        return Hydrated(columns, states, degraded=degraded, at_us=now_us, event_us=event_us)

    def _count(self, view: _View, states: Sequence[Sequence[FeatureState]]) -> None:
        counts: Counter[FeatureState] = Counter()
        for of_feature in states:
            counts.update(of_feature)
        for state, amount in counts.items():
            self._metrics.count_features(view.plan.name, state, amount)

    def _compute(self, view: OnDemandPlan, inputs: Columns, rows: int) -> Columns:
        if self._access is None:
            return {
                f.input: array_of(f, [visible(f, FeatureState.STORE_ERROR, None, None)] * rows, rows)
                for f in view.features
            }
        function = self._access.functions[view.name]
        try:
            computed = _call(function, {name: inputs[name].tolist() for name in function.inputs}, rows)
            return {
                f.input: array_of(f, (_given(f, v) for v in _column(computed, f, rows)), rows) for f in view.features
            }
        except RequestError:
            raise
        except Exception as error:
            raise InferenceFailed(
                f"on-demand view {view.name} failed with {type(error).__name__} on this request's values"
            ) from error


class _View:
    """A view and how it is resolved."""

    __slots__ = ("ages", "inputs", "plan", "present", "resolver")

    def __init__(self, plan: ViewPlan, resolver: ViewResolver, metrics: ModelMetrics) -> None:
        self.plan = plan
        self.resolver = resolver
        self.ages = metrics.ages(plan.name)
        self.present = metrics.features(plan.name, FeatureState.PRESENT)
        self.inputs = tuple(feature.input for feature in plan.features)


def _event_us(
    start: int, rows: int, resolved: Sequence[tuple[_View, Resolved, Sequence[int] | None]]
) -> Mapping[str, Sequence[int]]:
    """Cut one request's event times out of those of several."""
    return {
        view.plan.name: [of_view.event_us[key] for key in Part(start, rows, places).keys] if of_view.event_us else ()
        for view, of_view, places in resolved
    }


def _of_rows(event_us: Sequence[int], places: Sequence[int] | None) -> Sequence[int]:
    """Return event times by row of those by key."""
    return event_us if places is None else [event_us[key] for key in places]


def _fail(asked: Sequence[Asked], error: Exception) -> None:
    """Answer all that are not answered yet."""
    _LOG.error("hydration failed error=%s", type(error).__name__, exc_info=error)
    for one in asked:
        if not one.settled:
            one.settled = True
            failed = InferenceFailed(f"hydration failed with {type(error).__name__}")
            asyncio.get_running_loop().call_soon(one.request.done, failed)


def _keys(names: JoinKeys, inputs: Columns, rows: int) -> list[Key]:
    if not names:
        return [()] * rows
    if len(names) == 1:
        return [(part,) for part in inputs[names[0]].tolist()]
    return list(zip(*[inputs[name].tolist() for name in names], strict=True))


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
