"""What the product plans, against which a simulation sets what it sees."""

from __future__ import annotations

import numpy as np

from fairlead.experiment.planning import information_needed
from simulate.population import Floats

ALPHA = 0.05
POWER = 0.8


def effect_for(information: float) -> float:
    """Return the effect for which so much information is planned."""
    return float(np.sqrt(information_needed(1.0, alpha=ALPHA, power=POWER) / information))


def share_for(path: Floats, effect: float, *, power: float = POWER) -> float:
    """Return after which share of the looks an effect is planned to be found; NaN if not within them.

    Args:
        path: Information at each look, [looks].
        effect: Absolute.
        power: Share of experiments that have found it by then.
    """
    enough = path >= information_needed(effect, alpha=ALPHA, power=power)
    return float((enough.argmax() + 1) / path.size) if enough.any() else float("nan")
