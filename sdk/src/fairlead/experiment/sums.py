"""Sums over units: all that an analysis needs to know of them, whatever their number.

A unit is what was randomised. It has ``n`` requests that count, and ``x``, the total of a metric over them. An arm's
metric is the ratio ``R = Σx / Σn``, and how sure it is follows from the residuals ``d = x - R n`` of *unit totals*
(Deng, Knoblich, Lu 2018, Applying the Delta Method in Metric Analytics). All sums are kept about the arm's own ratio:
raw fourth powers would lose every digit where the spread is small beside the mean, and residuals lose none.

Everything here takes numbers and arrays alike; arrays keep their shape, e.g. [runs, looks].
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairlead.experiment.errors import UnfitEvidence

Array = NDArray[np.float64]
Number = Any
"""A float, or an array of floats of any shape."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over units about their own ratio; each field a float, or an array of one common shape."""

    units: Number
    """Units with at least one request that counts."""
    n: Number
    """Requests: Σn."""
    x: Number
    """Metric: Σx."""
    nn: Number
    """Σn²."""
    dn: Number
    """Σdn."""
    dd: Number
    """Σd²."""
    n4: Number
    """Σn⁴."""
    dn3: Number
    """Σdn³."""
    d2n2: Number
    """Σd²n²."""
    d3n: Number
    """Σd³n."""
    d4: Number
    """Σd⁴."""

    @classmethod
    def of(cls, n: ArrayLike, x: ArrayLike) -> Self:
        """Sum over units, the last axis; those without requests are left out.

        Args:
            n: Requests of each unit, [..., units], >= 0.
            x: Total of the metric over them, the same shape.

        Raises:
            UnfitEvidence: Shapes differ, a number is negative or not finite, or a unit has a total and no request.
        """
        count, total = np.asarray(n, np.float64), np.asarray(x, np.float64)
        if count.shape != total.shape or count.ndim == 0:
            raise UnfitEvidence(f"n and x are [..., units] of one shape, not {count.shape} and {total.shape}")
        if not (np.isfinite(count).all() and np.isfinite(total).all() and (count >= 0).all()):
            raise UnfitEvidence("requests and totals of units are finite, and requests not negative")
        if ((count == 0) & (total != 0)).any():
            raise UnfitEvidence("a unit without requests has no total")
        about = ratio_of(count.sum(-1), total.sum(-1))
        d = total - np.expand_dims(about, -1) * count
        moments = cls.about(
            about,
            units=(count > 0).sum(-1).astype(np.float64),
            n=count.sum(-1),
            **{name: (count**i * d**j).sum(-1) for name, (i, j) in _POWERS.items()},
        )
        return replace(moments, x=total.sum(-1))

    @classmethod
    def about(cls, centre: Number, *, units: Number, n: Number, d: Number, **powers: Number) -> Self:
        """Take sums of ``d = x - centre * n`` about any centre, and move them to the ratio itself.

        For whoever sums elsewhere (SQL, a stream engine, a simulation's looks). A centre near the ratio loses no
        digits: the ratio of an earlier look or of a first pass will do.

        Args:
            centre: What ``d`` is about.
            units: Units with requests.
            n: Σn.
            d: Σd.
            powers: Σ of nn, dn, dd, n4, dn3, d2n2, d3n, d4, with d about ``centre``.
        """
        raw = cls(units=units, n=n, x=d + centre * np.asarray(n, np.float64), **powers)
        return raw._moved(ratio_of(n, d))

    @property
    def ratio(self) -> Number:
        """The metric: Σx / Σn; 0 where there are no requests."""
        return ratio_of(self.n, self.x)

    def __add__(self, other: Moments) -> Moments:
        """Return the sums over the units of both; they must be different units."""
        n, x = self.n + other.n, self.x + other.x
        ratio = ratio_of(n, x)
        mine, theirs = self._moved(ratio - self.ratio), other._moved(ratio - other.ratio)
        return Moments(**{one.name: getattr(mine, one.name) + getattr(theirs, one.name) for one in fields(Moments)})

    def _moved(self, step: Number) -> Self:
        """Return the same sums about a centre that is ``step`` higher: d becomes d - step * n."""
        s = step
        return type(self)(
            units=self.units,
            n=self.n,
            x=self.x,
            nn=self.nn,
            dn=self.dn - s * self.nn,
            dd=self.dd - 2 * s * self.dn + s**2 * self.nn,
            n4=self.n4,
            dn3=self.dn3 - s * self.n4,
            d2n2=self.d2n2 - 2 * s * self.dn3 + s**2 * self.n4,
            d3n=self.d3n - 3 * s * self.d2n2 + 3 * s**2 * self.dn3 - s**3 * self.n4,
            d4=self.d4 - 4 * s * self.d3n + 6 * s**2 * self.d2n2 - 4 * s**3 * self.dn3 + s**4 * self.n4,
        )


_POWERS = {
    "d": (0, 1),
    "nn": (2, 0),
    "dn": (1, 1),
    "dd": (0, 2),
    "n4": (4, 0),
    "dn3": (3, 1),
    "d2n2": (2, 2),
    "d3n": (1, 3),
    "d4": (0, 4),
}


def ratio_of(n: Number, x: Number) -> Number:
    """Return x / n; 0 where n is 0."""
    count = np.asarray(n, np.float64)
    return np.divide(x, count, out=np.zeros(np.broadcast(count, x).shape), where=count > 0)[()]


def tempered(n: ArrayLike, x: ArrayLike, *, most: int) -> tuple[Array, Array]:
    """Return requests and totals in which no unit weighs more than ``most`` requests.

    A unit's mean stays its own. For metrics of which only a unit's totals are known (latency, errors), where "its
    first requests" cannot be picked out any more: without it the heaviest unit alone would carry the variance.
    """
    count, total = np.asarray(n, np.float64), np.asarray(x, np.float64)
    weight = np.minimum(count, most)
    return weight, total * ratio_of(count, weight)
