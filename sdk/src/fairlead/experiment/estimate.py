"""What an arm's sums say about its metric, and two arms' about their difference.

The delta method over units: Deng, Knoblich, Lu (2018), Applying the Delta Method in Metric Analytics. Never over
requests: a unit's requests are alike, and requests as the sample give 38 % to 100 % of false positives where 5 % are
promised. All functions take floats or arrays of one shape, e.g. [runs, looks].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fairlead.experiment.sums import Moments, Number, ratio_of

_NOISE_DEVIATIONS = 2.0
"""By how many of its standard deviations a variance over blocks must be the larger one."""


@dataclass(frozen=True, slots=True)
class ArmEstimate:
    """One arm's metric; each field a float or an array of one shape."""

    ratio: Number
    """Σx / Σn."""
    variance: Number
    """Of the ratio; infinite with less than two units."""
    n_eff: Number
    """Effective units (Σd²)² / Σd⁴: an inverse kurtosis. Of rare events it is the number, and of heavy users too."""
    units: Number


@dataclass(frozen=True, slots=True)
class Difference:
    """Treatment against control on one scale: the effect and its variance."""

    effect: Number
    """NaN where the scale has no meaning: a logarithm of what is not positive."""
    variance: Number

    @property
    def deviation(self) -> Number:
        """Square root of the variance."""
        return np.sqrt(self.variance)


def estimate(moments: Moments) -> ArmEstimate:
    """Return an arm's ratio, its variance over units, and how many units that variance really rests on."""
    units, n = (np.asarray(one, np.float64) for one in (moments.units, moments.n))
    square = np.maximum(moments.dd, 0.0)
    plain = ratio_of(n, ratio_of(n, square))
    variance = np.where(units > 1, plain * units / np.maximum(units - 1, 1), np.inf)[()]
    return ArmEstimate(
        ratio=moments.ratio,
        variance=variance,
        n_eff=ratio_of(np.maximum(moments.d4, 0.0), square**2),
        units=moments.units,
    )


def larger(units: ArmEstimate, *blocks: ArmEstimate) -> ArmEstimate:
    """Return the estimate over units with the largest of the variances, and the effective size that goes with it.

    Longer blocks see longer stalls, but there are few of them and their variance is noisy. So a variance counts as
    larger only if it is so by more than that noise: calm servers cost nothing, and with stalls of 3 to 10 minutes it
    keeps at 1 % what blocks of one minute alone let grow to 99 % of false positives.

    Args:
        units: Clustered by unit: sees that a unit's requests are alike.
        blocks: Clustered by server and time, short ones first (`fairlead.experiment.evidence.blocks_of`): see that a
            stall strikes many units at once. Less than two blocks say nothing.
    """
    found = units
    for each in blocks:
        many = np.maximum(np.asarray(each.units, np.float64) - 1, 1)
        noise = _NOISE_DEVIATIONS * np.sqrt(2 / many)
        by_block = (np.asarray(each.units) > 1) & (each.variance > found.variance * (1 + noise))
        found = ArmEstimate(
            ratio=units.ratio,
            variance=_either(by_block, each.variance, found.variance),
            n_eff=_either(by_block, each.n_eff, found.n_eff),
            units=units.units,
        )
    return found


def absolute(control: ArmEstimate, treatment: ArmEstimate) -> Difference:
    """Return treatment less control, in the metric's own unit."""
    return Difference(treatment.ratio - control.ratio, control.variance + treatment.variance)


def relative(control: ArmEstimate, treatment: ArmEstimate) -> Difference:
    """Return ln(treatment / control); exp(…) - 1 is the relative effect."""
    fits = np.logical_and(np.asarray(control.ratio) > 0, np.asarray(treatment.ratio) > 0)
    mine, theirs = _either(fits, treatment.ratio, 1.0), _either(fits, control.ratio, 1.0)
    return Difference(
        effect=_either(fits, np.log(mine) - np.log(theirs), np.nan),
        variance=treatment.variance / mine**2 + control.variance / theirs**2,
    )


def _either(condition: Number, this: Number, other: Number) -> Number:
    chosen = np.where(condition, np.asarray(this, np.float64), np.asarray(other, np.float64))
    return chosen[()]
