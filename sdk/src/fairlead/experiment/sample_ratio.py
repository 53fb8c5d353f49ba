"""Whether the arms' units are in the planned shares.

Where they are not, units were lost or moved, and those left are no random sample any more: no effect may be read from
them. The test is an e-process: a Dirichlet-multinomial mixture against the planned shares (Lindon, Malek 2022,
Anytime-Valid Inference for Multinomial Count Data), exact at any size, for any number of arms, at any look. It counts
first exposures in the whole experiment only: those of each ramp step are fresh draws, so the steps' e-values multiply.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, logsumexp

from fairlead.experiment.sums import Number

ALPHA = 0.01
"""Share of sound experiments that may ever be called broken."""
CONCENTRATIONS = (100.0, 10_000.0)
"""Of the mixture: the small one finds gross errors at once, the large one small losses sooner."""
IMPOSSIBLE = 1e4
"""ln of the e-value once a unit is in an arm that has no share."""
_NO_SHARE = 1e-9
"""What rounding may leave of a share that is 0."""


def log_e(counts: ArrayLike, shares: ArrayLike) -> Number:
    """Return ln of the e-value of one phase against its planned shares.

    Args:
        counts: First exposures, [..., arms].
        shares: Planned, [arms], sum 1.
    """
    return _averaged(log_e_by_concentration(counts, shares))


def log_e_of_steps(steps: Sequence[tuple[ArrayLike, ArrayLike]]) -> Number:
    """Return ln of the e-value of several ramp steps, each with its own counts and shares."""
    if not steps:
        return 0.0
    return _averaged(np.sum([log_e_by_concentration(counts, shares) for counts, shares in steps], axis=0))


def log_e_by_concentration(counts: ArrayLike, shares: ArrayLike) -> Number:
    """Return ln of each concentration's e-value, [..., concentrations]; they multiply over steps."""
    seen, planned = np.asarray(counts, np.float64), np.asarray(shares, np.float64)
    possible = planned > _NO_SHARE
    n, p = seen[..., possible], planned[possible]
    total = n.sum(-1)
    each = [
        gammaln(k) - gammaln(k + total) + (gammaln(k * p + n) - gammaln(k * p) - n * np.log(p)).sum(-1)
        for k in CONCENTRATIONS
    ]
    misplaced = np.expand_dims(seen[..., ~possible].sum(-1) > 0, -1)
    return np.where(misplaced, IMPOSSIBLE, np.stack(each, axis=-1))


def alarm(alpha: float = ALPHA) -> float:
    """Return the ln of the e-value from which on the ratio is broken."""
    return -float(np.log(alpha))


def _averaged(by_concentration: Number) -> Number:
    return (logsumexp(by_concentration, axis=-1) - np.log(len(CONCENTRATIONS)))[()]
