"""Whether outcomes are missing alike in all arms.

Where one arm's outcomes get lost more often, those that are left say something about who was lost. Two tests, each at
half of the alpha: of units (has a matured unit any outcome?), exact as in `fairlead.experiment.trials`; and of requests
(which share of a unit's matured requests has one?), over units as any ratio metric.
"""

from __future__ import annotations

import numpy as np

from fairlead.experiment import bounds, gate
from fairlead.experiment.estimate import absolute, estimate
from fairlead.experiment.sums import Moments, Number
from fairlead.experiment.trials import Trials, log_e_unequal

ALPHA = 0.01
"""Share of sound experiments that may ever be called broken."""
SMALLEST_GAP = 0.02
"""Difference of coverage that matters, 0 to 1: the width of the mixture."""


def log_e_of_units(arms: tuple[Trials, ...]) -> Number:
    """Return ln of the e-value against "a unit's outcomes come as often in each arm"; ``total`` units have one."""
    return log_e_unequal(arms)


def log_e_of_requests(control: Moments, treatment: Moments) -> Number:
    """Return ln of the e-value against "a request's outcome comes as often in both arms"; 0 below the gate.

    Args:
        control: Sums over units: n matured requests, x of them with an outcome.
        treatment: The same of the treatment.
    """
    arms = estimate(control), estimate(treatment)
    difference = absolute(*arms)
    is_open = gate.is_open(*arms, effective_units=gate.EFFECTIVE_UNITS)
    variance = np.where(is_open, difference.variance, 1.0)
    found = bounds.log_e_two_sided(difference.effect / np.sqrt(variance), bounds.clock(variance, effect=SMALLEST_GAP))
    return np.where(is_open, found, 0.0)[()]
