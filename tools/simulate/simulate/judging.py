"""Experiments judged at every look by the product's own functions, and by the tests that others would do beside them.

Arrays are [runs, looks].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from fairlead.experiment import bounds, gate
from fairlead.experiment.estimate import ArmEstimate, Difference, absolute, estimate, relative
from fairlead.experiment.sums import Moments
from simulate.population import Flags, Floats

ALPHA = 0.05
NAIVE = float(norm.ppf(1 - ALPHA / 2))
"""What a test at a fixed horizon takes for significant, looked at again and again."""
NEVER = 1.01
"""Share of the traffic at which a run stopped that did not."""


@dataclass(frozen=True, slots=True)
class Path:
    """A difference of two arms at every look, and whether there were enough units to speak of it."""

    difference: Difference
    is_open: Flags

    def outside(self, truth: float, *, effect: float, alpha: float = ALPHA, gated: bool = True) -> Flags:
        """Return at which looks the interval leaves the truth out, if ``effect`` is what matters."""
        found = np.abs(self.difference.effect - truth) >= self.half_width(effect=effect, alpha=alpha)
        return np.asarray(found & self.is_open if gated else found)

    def half_width(self, *, effect: float, alpha: float = ALPHA) -> Floats:
        """Return half the interval's width."""
        u = bounds.clock(self.difference.variance, effect=effect)
        return np.asarray(bounds.two_sided(u, alpha=alpha) * self.difference.deviation)

    def naively_outside(self, truth: float = 0.0) -> Flags:
        """Return at which looks a test for one look leaves it out."""
        return np.asarray(np.abs(self.difference.effect - truth) >= NAIVE * self.difference.deviation)

    @property
    def information(self) -> Floats:
        """Inverse variance."""
        return np.asarray(1.0 / self.difference.variance)


@dataclass(frozen=True, slots=True)
class Pair:
    """Control and a treatment at every look."""

    control: ArmEstimate
    treatment: ArmEstimate
    effective_units: float
    """That the gate needs."""

    @classmethod
    def of(cls, moments: Moments, *, is_bounded: bool, smallest_share: float, treatment: int = 1) -> Pair:
        """Estimate both from moments whose last axis is the arms."""
        needed = gate.needed(is_bounded=is_bounded, smallest_share=smallest_share)
        return cls(estimate(arm(moments, 0)), estimate(arm(moments, treatment)), needed)

    def is_open(self) -> Flags:
        """Return whether the gate is open."""
        return np.asarray(gate.is_open(self.control, self.treatment, effective_units=self.effective_units))

    def absolute(self) -> Path:
        """Return the difference."""
        return Path(absolute(self.control, self.treatment), self.is_open())

    def relative(self) -> Path:
        """Return the difference of logarithms."""
        return Path(relative(self.control, self.treatment), self.is_open())

    def n_eff(self) -> Floats:
        """Return the smaller of both effective sizes."""
        return np.asarray(np.minimum(self.control.n_eff, self.treatment.n_eff))


def arm(moments: Moments, index: int) -> Moments:
    """Return one arm of moments whose last axis is the arms."""
    return Moments(**{name: getattr(moments, name)[..., index] for name in Moments.__slots__})


def naive_requests(moments: Moments, squares: Floats) -> Flags:
    """Return at which looks a test that takes requests for independent finds a difference that is not there."""
    ratio = moments.ratio
    variance = (squares / moments.n - ratio**2) / moments.n
    difference = ratio[..., 1] - ratio[..., 0]
    return np.asarray(np.abs(difference) >= NAIVE * np.sqrt(variance[..., 0] + variance[..., 1]))


def ever(flags: Flags) -> Floats:
    """Return whether a run has it at any look, 0 or 1."""
    return np.asarray(flags.any(axis=1), np.float64)


def since(flags: Flags) -> Floats:
    """Return whether a run has had it until each look, 0 or 1."""
    return np.asarray(np.maximum.accumulate(flags, axis=1), np.float64)


def first(flags: Flags) -> Floats:
    """Return at which share of the looks a run first has it; `NEVER` if it does not."""
    looks = flags.shape[1]
    return np.where(flags.any(axis=1), (flags.argmax(axis=1) + 1) / looks, NEVER)


def at_first(flags: Flags, values: Floats) -> Floats:
    """Return the value at the look at which a run first has it; NaN if it does not."""
    found = values[np.arange(len(flags)), flags.argmax(axis=1)]
    return np.where(flags.any(axis=1), found, np.nan)
