"""Whether there are enough units for a normal approximation to hold.

Counting units does not tell: with 1 % of events and a tenth of the traffic, 50 units per arm gave 31 % of false
positives, and 500 still 6 %; with heavy users a single one may carry all the variance, however many there are. The
effective size does: Bibaut, Kallus, Lindon (2024, arXiv 2212.14411) give the theory of such a delayed start, the
figures behind the numbers are simulated.
"""

from __future__ import annotations

import numpy as np

from fairlead.experiment.estimate import ArmEstimate
from fairlead.experiment.sums import Number

EFFECTIVE_UNITS = 25.0
"""Effective units that each arm needs."""
EFFECTIVE_UNITS_BALANCED = 10.0
"""Enough where the metric is bounded and every arm has a third of the units at least: skews cancel."""
UNITS = 100
"""Units that each arm needs besides."""
_BALANCED_SHARE = 1 / 3


def needed(*, is_bounded: bool, smallest_share: float) -> float:
    """Return the effective units that each arm needs.

    Args:
        is_bounded: Whether a request's value cannot leave fixed bounds.
        smallest_share: The smallest planned share of any arm of the phase, 0 to 1.
    """
    return EFFECTIVE_UNITS_BALANCED if is_bounded and smallest_share >= _BALANCED_SHARE else EFFECTIVE_UNITS


def is_open(control: ArmEstimate, treatment: ArmEstimate, *, effective_units: float) -> Number:
    """Return whether both arms have enough; bool or array of bool."""
    return np.logical_and.reduce(
        [
            (np.asarray(arm.n_eff) >= effective_units) & (np.asarray(arm.units) >= UNITS) & (arm.variance > 0)
            for arm in (control, treatment)
        ]
    )[()]
