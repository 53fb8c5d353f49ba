"""Whether outcomes are missing alike in all arms.

Where one arm's outcomes get lost more often, those that are left say something about who was lost. Two tests, each at
half of the alpha: of requests (which share of a unit's matured requests has an outcome?), over units as any ratio
metric, once there are enough; until then, or where hardly anything is missing, of units (has a matured unit any
outcome?), exact as in `fairlead.experiment.trials`. Units alone would not do for long: a treatment that makes users
come more often gives more of them an outcome, with none lost.
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


def can_tell(control: Moments, treatment: Moments) -> Number:
    """Return whether there are enough requests, with and without outcome, for the test of requests."""
    return gate.is_open(estimate(control), estimate(treatment), effective_units=gate.EFFECTIVE_UNITS)


def log_e_of_requests(control: Moments, treatment: Moments) -> Number:
    """Return ln of the e-value against "a request's outcome comes as often in both arms"; 0 below the gate.

    Args:
        control: Sums over units: n matured requests, x of them with an outcome.
        treatment: The same of the treatment.
    """
    arms = estimate(control), estimate(treatment)
    difference = absolute(*arms)
    is_open = can_tell(control, treatment)
    variance = np.where(is_open, difference.variance, 1.0)
    found = bounds.log_e_two_sided(difference.effect / np.sqrt(variance), bounds.clock(variance, effect=SMALLEST_GAP))
    return np.where(is_open, found, 0.0)[()]
