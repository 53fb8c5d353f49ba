"""Counts above a fixed grid of thresholds: what quantiles are estimated from, mergeable like every other sum.

Thresholds are 2^(1/16) = 4.4 % apart. A server counts its requests by `edge_of` their latency in milliseconds; the
ledger sums, per cluster (server and minute, or unit), how many were above each threshold near the quantile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairlead.experiment.blocks import blocks_by_length
from fairlead.experiment.sums import Moments

EDGES_PER_DOUBLING = 16
LOWEST_EDGE = -320
"""2^-20: what is smaller, 0 and below counts as that."""
HIGHEST_EDGE = 640
"""2^40: what is larger counts as that."""
_NEAR = 8.0
"""Thresholds are kept at which between 1/8 and 8 times the wanted share lies above."""


def edge_of(value: ArrayLike) -> NDArray[np.int64]:
    """Return the number of the highest edge that is below a value (or equal to it); for latency in milliseconds."""
    with np.errstate(divide="ignore", invalid="ignore"):
        number = np.floor(np.log2(np.maximum(np.asarray(value, np.float64), 0.0)) * EDGES_PER_DOUBLING)
    return np.asarray(np.clip(number, LOWEST_EDGE, HIGHEST_EDGE), np.int64)


def edge_value(edge: int) -> float:
    """Return the threshold that has that number."""
    return float(2.0 ** (edge / EDGES_PER_DOUBLING))


@dataclass(frozen=True, slots=True)
class TailSums:
    """Requests above one threshold, summed over clusters (units or blocks)."""

    edge: int
    moments: Moments
    """n requests, x above the threshold."""
    longer: tuple[Moments, ...] = ()
    """The same over longer blocks."""


def tails_of(
    counts: Sequence[Mapping[int, int]],
    *,
    edges: Sequence[int],
    blocks: tuple[ArrayLike, ArrayLike] | None = None,
) -> tuple[TailSums, ...]:
    """Sum over clusters how many requests are above each of some thresholds.

    Args:
        counts: Of each cluster: requests by `edge_of` their value.
        edges: Of the thresholds, ascending; the same for all arms (`edges_near`).
        blocks: Where clusters are blocks of a minute: server and minute of each. The sums then are over the longer
            blocks too, so that a stall of many minutes is seen to be one.
    """
    lengths = [np.arange(len(counts))] if blocks is None else list(blocks_by_length(*blocks))
    n = np.array([sum(one.values()) for one in counts], np.float64)
    above = [np.array([sum(k for edge, k in one.items() if edge >= at) for one in counts], np.float64) for at in edges]
    return tuple(
        TailSums(edge, *_by_length([Moments.of(np.bincount(at, n), np.bincount(at, x)) for at in lengths]))
        for edge, x in zip(edges, above, strict=True)
    )


def _by_length(moments: Sequence[Moments]) -> tuple[Moments, tuple[Moments, ...]]:
    return moments[0], tuple(moments[1:])


def edges_near(counts: Mapping[int, int], quantile: float) -> tuple[int, ...]:
    """Return the thresholds around a quantile that are worth keeping.

    Args:
        counts: Requests by `edge_of` their value, over all arms together.
        quantile: 0 to 1.
    """
    total = sum(counts.values())
    if not total:
        return ()
    wanted = 1 - quantile
    low, high = min(counts), max(counts) + 1
    share = {edge: sum(k for at, k in counts.items() if at >= edge) / total for edge in range(low, high + 1)}
    most = min(wanted * _NEAR, 1 - quantile / _NEAR)
    kept = [edge for edge in share if wanted / _NEAR <= share[edge] <= most]
    return tuple(range(min(kept, default=low) - 1, max(kept, default=high) + 2))
