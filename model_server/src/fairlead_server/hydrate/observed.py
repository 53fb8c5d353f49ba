"""What is seen of hydration from outside: how old the rows are, who reads a view, and whether all is as it should be.

Values become Prometheus' families when they are scraped; see :mod:`fairlead_server.metrics`, which holds them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric

AGE_BUCKETS_S: Final = (
    *(1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 10800, 21600, 43200),
    *(86400, 2 * 86400, 4 * 86400, 7 * 86400, 14 * 86400, 30 * 86400),
)
"""Seconds: from what is pushed every second to what is materialized once a month."""

_BUCKETS_US: Final = tuple(limit * 1_000_000 for limit in AGE_BUCKETS_S)
_BUCKETS_ARRAY: Final = np.array(_BUCKETS_US, np.int64)
_FIRST_US: Final = 2
"""Event times before it are of no row: 0 of one that is not there, 1 of one that cannot be read."""
_FEW: Final = 16
"""Rows up to which counting them one by one is faster."""

_OF_MODEL: Final = ("model", "variant")
Model = tuple[str, ...]
"""A model and its variant."""


class Ages:
    """Ages of the rows of one view that requests found, by bucket."""

    __slots__ = ("counts", "sum_us")

    def __init__(self) -> None:
        """Start empty."""
        self.counts = [0] * (len(_BUCKETS_US) + 1)
        self.sum_us = 0

    def add(self, event_us: Sequence[int], now_us: int) -> None:
        """Count rows.

        Args:
            event_us: Their event times, microseconds since 1970; 0 where there is no row.
            now_us: The time. A row of a later one is of age 0.
        """
        if len(event_us) <= _FEW:
            for us in event_us:
                if us >= _FIRST_US:
                    age_us = now_us - us if us < now_us else 0
                    self.counts[bisect_left(_BUCKETS_US, age_us)] += 1
                    self.sum_us += age_us
            return
        first_us, last_us = min(event_us), max(event_us)
        if first_us >= _FIRST_US and last_us <= now_us:
            bucket = bisect_left(_BUCKETS_US, now_us - first_us)
            if bucket == bisect_left(_BUCKETS_US, now_us - last_us):  # as of rows that were materialized together
                self.counts[bucket] += len(event_us)
                self.sum_us += len(event_us) * now_us - sum(event_us)
                return
        times = np.array(event_us, np.int64)
        ages_us = np.maximum(now_us - times[times >= _FIRST_US], 0)
        amounts = np.bincount(np.searchsorted(_BUCKETS_ARRAY, ages_us), minlength=len(self.counts))
        self.counts = [before + int(amount) for before, amount in zip(self.counts, amounts, strict=True)]
        self.sum_us += int(ages_us.sum())

    @property
    def count(self) -> int:
        """How many rows there were."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Watched:
    """What is asked of a model at every scrape."""

    drifted: Callable[[], bool]
    """Whether the registered features are others than those that are served."""
    circuit_open: Callable[[], bool]
    """Whether its online store is left alone at the moment."""


class HydrationMetrics:
    """Metrics of hydration, of every model of the process."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.ages: dict[tuple[str, ...], Ages] = {}
        """By model, variant and view."""
        self.limits_s: dict[tuple[str, ...], float] = {}
        """Age in seconds beyond which a view's rows are STALE; views without a limit are left out."""
        self.readers: dict[tuple[str, ...], str] = {}
        """Who reads a view."""
        self.watched: dict[Model, Watched] = {}

    def ages_of(self, model: Model, view: str) -> Ages:
        """Return where the ages of a view's rows are counted."""
        return self.ages.setdefault((*model, view), Ages())

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield self._collect_ages()
        limits = GaugeMetricFamily(
            "fairlead_feature_max_age_seconds",
            "Age beyond which rows of a view are STALE; views without such a limit are left out.",
            labels=(*_OF_MODEL, "view"),
        )
        for values, limit_s in list(self.limits_s.items()):
            limits.add_metric(values, limit_s)
        yield limits
        readers = GaugeMetricFamily(
            "fairlead_feature_reader",
            "1 for who reads or computes a view: redis, generic (online_read), python (its function) or feast.",
            labels=(*_OF_MODEL, "view", "reader"),
        )
        for values, reader in list(self.readers.items()):
            readers.add_metric((*values, reader), 1)
        yield readers
        drift = GaugeMetricFamily(
            "fairlead_contract_drift",
            "1 while the registered features are others than those that are served, which go on being served.",
            labels=_OF_MODEL,
        )
        circuits = GaugeMetricFamily(
            "fairlead_store_circuit_open", "1 while a sick online store is left alone.", labels=_OF_MODEL
        )
        for model, watched in list(self.watched.items()):
            drift.add_metric(model, float(watched.drifted()))
            circuits.add_metric(model, float(watched.circuit_open()))
        yield drift
        yield circuits

    def _collect_ages(self) -> Metric:
        family = HistogramMetricFamily(
            "fairlead_feature_age_seconds",
            "Age of the rows that requests found in the online store, by view.",
            labels=(*_OF_MODEL, "view"),
        )
        limits = [*map(str, map(float, AGE_BUCKETS_S)), "+Inf"]
        for values, ages in list(self.ages.items()):
            buckets = list(zip(limits, accumulate(ages.counts), strict=True))
            family.add_metric(values, buckets, sum_value=ages.sum_us / 1e6)
        return family
