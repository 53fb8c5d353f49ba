"""Whether a covariate is one: known before the treatment, and so alike in all arms."""

from __future__ import annotations

import numpy as np

from fairlead.experiment import bounds
from fairlead.experiment.covariate import CovariateMoments
from fairlead.experiment.sums import Number, ratio_of

ALPHA = 0.01
"""Share of sound covariates that are ever found to differ between arms."""
_IMBALANCE = 0.1
"""Difference that matters, in standard deviations of the covariate: the width of the mixture."""


def differs(control: CovariateMoments, treatment: CovariateMoments) -> Number:
    """Return whether units' covariates differ between arms, at any look; bool or array of bool.

    Before a treatment nothing can differ but by chance. What does was made by the treatment (the covariate of units
    that were treated before, or one that comes from outcomes), and taking it out would take out the effect.
    """
    units = control.units + treatment.units
    spread = ratio_of(units, control.ee + treatment.ee)
    variance = spread * (ratio_of(control.units, 1.0) + ratio_of(treatment.units, 1.0))
    can_tell = (variance > 0) & (control.units > 0) & (treatment.units > 0)
    known = np.where(can_tell, variance, 1.0)
    u = bounds.clock(known, effect=_IMBALANCE * np.sqrt(spread))
    log_e = bounds.log_e_two_sided((treatment.mean - control.mean) / np.sqrt(known), u)
    return (can_tell & (log_e >= -np.log(ALPHA)))[()]
