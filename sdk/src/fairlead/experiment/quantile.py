"""Quantiles, such as the 99th percentile of latency, with intervals that stay valid while being watched.

The q-quantile of an arm lies below a threshold exactly if at most a share of ``1 - q`` of its requests lies above it.
That share is a ratio metric like any other (requests above, of requests), so its confidence sequence over units or
blocks (`fairlead.experiment.bounds`) turns into one for the quantile: all thresholds at which it still allows 1 - q
(the classical inversion; sequentially Howard, Ramdas 2022, Sequential estimation of quantiles; clustered: Deng,
Knoblich, Lu 2018). Only the truth's own threshold is ever tested, so no correction for the many thresholds is needed.
Each arm gets half of the alpha, and the ends of the two intervals give the effect's.

Thresholds are a fixed grid, 2^(1/16) = 4.4 % apart, which counts merge over; the interval is rounded outwards to it.
Limits: two arms' intervals are compared instead of the difference's own, so it takes about 1.6 times the width (2.4
times the sample) of a method that knew the densities; a margin well below 10 % can hardly ever be shown; a quantile
needs 25 effective requests beyond it, so at least 2,500 for the 99th percentile; blocks are of one server and up to
30 minutes, so stalls that last longer are seen only in part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fairlead.experiment import bounds, gate
from fairlead.experiment.errors import UnfitEvidence
from fairlead.experiment.estimate import estimate, larger
from fairlead.experiment.tail import EDGES_PER_DOUBLING, TailSums, edge_value


@dataclass(frozen=True, slots=True)
class QuantileEstimate:
    """One arm's quantile, and the thresholds that it lies between at every look."""

    value: float | None
    """None without requests."""
    low: float
    """0: unbounded."""
    high: float
    """Infinite: unbounded."""
    n_eff: float
    """Effective units of the share above the estimate."""
    units: int


def share_that_matters(quantile: float, effect: float) -> float:
    """Return how much of the requests a shift of a quantile by a relative effect moves across it, roughly.

    Fixed before the start, for the mixture's width alone: five times the effect, of the share beyond, which is what
    lognormal latencies with a spread of 0.5 have at their 99th percentile; wrong by a factor of 3 it costs little.
    """
    return (1 - quantile) * min(1.0, 5 * effect)


def estimate_quantile(
    tails: Sequence[TailSums], quantile: float, *, effect: float, alpha: float, one_sided: bool
) -> QuantileEstimate:
    """Return an arm's quantile with bounds that hold at every look.

    Args:
        tails: Of one arm, by ascending edge.
        quantile: 0 to 1.
        effect: Relative size of the change that matters.
        alpha: Of this arm; of each bound by itself if ``one_sided``, else of both together.
        one_sided: Whether only one of the bounds will be used for a claim.

    Raises:
        UnfitEvidence: The edges do not ascend.
    """
    edges = [tail.edge for tail in tails]
    if edges != sorted(set(edges)):
        raise UnfitEvidence("tails are in the order of their edges, each once")
    wanted = 1 - quantile
    low, high, best, n_eff, units = 0.0, math.inf, None, 0.0, 0
    for tail in tails:
        arm = larger(estimate(tail.moments), *(estimate(each) for each in tail.longer))
        if not arm.units:
            continue
        if arm.ratio >= wanted or best is None:
            best, n_eff, units = tail.edge, float(arm.n_eff), int(arm.units)
        if not arm.variance > 0 or not math.isfinite(arm.variance) or arm.n_eff < gate.EFFECTIVE_UNITS:
            continue
        u = bounds.clock(arm.variance, effect=share_that_matters(quantile, effect))
        width = (bounds.one_sided if one_sided else bounds.two_sided)(u, alpha=alpha) * math.sqrt(arm.variance)
        if arm.ratio - width > wanted:  # more lies above than may: the quantile is higher
            low = max(low, edge_value(tail.edge))
        if arm.ratio + width < wanted:
            high = min(high, edge_value(tail.edge))
    value = None if best is None else edge_value(best) * 2.0 ** (0.5 / EDGES_PER_DOUBLING)
    return QuantileEstimate(value=value, low=low, high=high, n_eff=n_eff, units=units)
