"""Adjustment by a covariate that was known at a unit's first exposure: the same effect, a narrower interval.

Deng, Xu, Kohavi, Walker (2013), Improving the Sensitivity of Online Controlled Experiments by Utilizing Pre-Experiment
Data; Deng et al. (2023, arXiv 2312.02935), From Augmentation to Decomposition; sequentially: Lindon, Ham, Tingley,
Bojinov (arXiv 2210.08589). Two versions: by the mean over units, always safe; and by the mean over requests, which
gains about twice as much on a request-weighted ratio, but takes away what a treatment does to who makes requests, so
it is used only while requests per unit show no difference between arms.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from fairlead.experiment.errors import UnfitEvidence
from fairlead.experiment.estimate import Difference
from fairlead.experiment.sums import Moments, Number, ratio_of

LARGEST = 1e60
"""Of a covariate that can be squared and summed."""


@dataclass(frozen=True, slots=True)
class CovariateMoments:
    """Sums over the units with a known covariate; e = covariate - mean, d = x - R n with the metric's own R."""

    units: Number
    mean: Number
    """Over units."""
    n: Number
    """Σn."""
    nn: Number
    """Σn²."""
    d: Number
    """Σd."""
    nd: Number
    """Σnd."""
    ee: Number
    """Σe²."""
    ne: Number
    """Σne."""
    de: Number
    """Σde."""
    nde: Number
    """Σnde."""
    nne: Number
    """Σn²e."""
    nnee: Number
    """Σn²e²."""

    @classmethod
    def of(cls, n: ArrayLike, x: ArrayLike, covariate: ArrayLike, *, ratio: Number) -> Self:
        """Sum over units, the last axis; those without requests or without covariate (NaN) are left out.

        So are those with one beyond ``LARGEST``: one broken feature may not keep the others from being judged.

        Raises:
            UnfitEvidence: Shapes differ, or a covariate is infinite.
        """
        count, total, value = (np.asarray(one, np.float64) for one in (n, x, covariate))
        if count.shape != value.shape:
            raise UnfitEvidence(f"a covariate is one number per unit: {value.shape} for {count.shape}")
        if np.isinf(value).any():
            raise UnfitEvidence("a covariate is a finite number, or NaN where it is unknown")
        known = (count > 0) & (np.abs(value) <= LARGEST)
        count = np.where(known, count, 0.0)
        d = np.where(known, total - np.expand_dims(ratio, -1) * count, 0.0)
        units = known.sum(-1).astype(np.float64)
        mean = ratio_of(units, np.where(known, value, 0.0).sum(-1))
        e = np.where(known, value - np.expand_dims(mean, -1), 0.0)
        sums = {
            "n": count,
            "nn": count**2,
            "d": d,
            "nd": count * d,
            "ee": e**2,
            "ne": count * e,
            "de": d * e,
            "nde": count * d * e,
            "nne": count**2 * e,
            "nnee": count**2 * e**2,
        }
        return cls(units=units, mean=mean, **{name: each.sum(-1) for name, each in sums.items()})

    def __add__(self, other: CovariateMoments) -> CovariateMoments:
        """Return the sums of both, about their common mean; d of both must be about the same ratio (`moved`)."""
        units = self.units + other.units
        mean = self.mean + ratio_of(units, (other.mean - self.mean) * np.asarray(other.units, np.float64))
        mine, theirs = self.moved(0.0, mean - self.mean), other.moved(0.0, mean - other.mean)
        added: dict[str, Any] = {
            one.name: getattr(mine, one.name) + getattr(theirs, one.name) for one in fields(CovariateMoments)
        }
        return CovariateMoments(**{**added, "mean": mean})

    def moved(self, ratio: Number, mean: Number = 0.0) -> CovariateMoments:
        """Return the same sums with the metric's ratio and the covariate's mean higher by so much."""
        r, g = ratio, mean
        return CovariateMoments(
            units=self.units,
            mean=self.mean + g,
            n=self.n,
            nn=self.nn,
            d=self.d - r * self.n,
            nd=self.nd - r * self.nn,
            ee=self.ee + g**2 * self.units,
            ne=self.ne - g * self.n,
            de=self.de - g * self.d - r * self.ne + r * g * self.n,
            nde=self.nde - g * self.nd - r * self.nne + r * g * self.nn,
            nne=self.nne - g * self.nn,
            nnee=self.nnee - 2 * g * self.nne + g**2 * self.nn,
        )


@dataclass(frozen=True, slots=True)
class Tie:
    """How an arm's ratio goes with the mean of its covariate."""

    mean: Number
    """Of the covariate."""
    variance: Number
    """Of that mean."""
    covariance: Number
    """Of that mean and the ratio."""


def tie(moments: Moments, known: CovariateMoments, *, by_request: bool) -> Tie:
    """Return how a ratio goes with its covariate.

    Args:
        moments: The metric's sums.
        known: Sums with the covariate, over the units that have one.
        by_request: Whether the covariate's mean is over requests, or over units.
    """
    if not by_request:
        return Tie(
            mean=known.mean,
            variance=ratio_of(known.units, ratio_of(known.units, known.ee)),
            covariance=ratio_of(moments.n, ratio_of(known.units, known.de)),
        )
    shift = ratio_of(known.n, known.ne)  # from the mean over units to the mean over requests
    square = known.nnee - 2 * shift * known.nne + shift**2 * known.nn
    return Tie(
        mean=known.mean + shift,
        variance=ratio_of(known.n, ratio_of(known.n, np.maximum(square, 0.0))),
        covariance=ratio_of(moments.n, ratio_of(known.n, known.nde - shift * known.nd)),
    )


def adjusted(difference: Difference, control: Tie, treatment: Tie, *, scale: tuple[Number, Number]) -> Difference:
    """Return the difference with what the covariate explains taken out; its estimand is the same.

    Args:
        difference: As measured.
        control: Of that arm.
        treatment: Of that arm.
        scale: What the arms' ratios are divided by in the difference: 1, or on the relative scale the ratios.
    """
    covariance = ratio_of(scale[0], control.covariance) + ratio_of(scale[1], treatment.covariance)
    variance = control.variance + treatment.variance
    slope = ratio_of(variance, covariance)
    return Difference(
        effect=difference.effect - slope * (treatment.mean - control.mean),
        variance=np.maximum(difference.variance - slope * covariance, 0.0)[()],
    )
