"""What the ledger would hold of an experiment at each look: sums over units, which grow request by request.

Summed up by differences, so that looking a hundred times costs no more than looking once. That it comes to what the
product makes of whole units (``Moments.of``) is tested.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fairlead.experiment.covariate import CovariateMoments
from fairlead.experiment.sums import Moments
from simulate.population import Flags, Floats, Requests, Whole

Summed = Callable[[Floats], Floats]
"""Sums a number per request up to each look: [requests] -> [looks, arms]."""

POWERS = {
    "nn": (2, 0),
    "dn": (1, 1),
    "dd": (0, 2),
    "n4": (4, 0),
    "dn3": (3, 1),
    "d2n2": (2, 2),
    "d3n": (1, 3),
    "d4": (0, 4),
}
"""Exponents of a unit's number of requests and of its residual total."""


@dataclass(frozen=True, slots=True)
class Growth:
    """Sums at each look, of each arm."""

    moments: Moments
    """Each field [looks, arms]."""
    squares: Floats
    """[looks, arms]: of the requests' values, for the test that takes requests for independent."""
    covariates: CovariateMoments | None
    """Each field [looks, arms]; None where no unit has one."""


def looks_of(time: Floats, looks: int) -> Whole:
    """Return at which look each request is first seen, if as many requests come before each look as before any."""
    ends = np.ceil(np.arange(1, looks + 1) * time.size / looks).astype(np.int64) - 1
    return np.searchsorted(np.sort(time)[ends], time)


def grow(drawn: Requests, *, looks: int, cap: int | None, centre: float) -> Growth:
    """Return the sums at each look, of each unit's first ``cap`` requests."""
    look = looks_of(drawn.time, looks)
    counted = np.ones(look.size, np.bool_) if cap is None else drawn.ordinal < cap
    return totals(drawn, look, counted, looks=looks, centre=centre)


def totals(drawn: Requests, look: Whole, counted: Flags, *, looks: int, centre: float) -> Growth:
    """Return the sums of the requests that are counted, each from its look on.

    Args:
        drawn: Requests.
        look: [requests]: the look at which each is first seen; ``looks`` or later is never. Must not fall within a
            unit.
        counted: [requests]: which count at all.
        looks: How many looks.
        centre: A value near the mean of requests: the closer, the fewer digits are lost.
    """
    kept = counted & (look < looks)
    unit, value = drawn.unit[kept], drawn.value[kept]
    arms = int(drawn.arm.max()) + 1
    cell = look[kept] * arms + drawn.arm[unit]

    def summed(weight: Floats) -> Floats:
        return np.bincount(cell, weight, minlength=looks * arms).reshape(looks, arms).cumsum(axis=0)

    changes = _changes(unit, value - centre)
    moments = _moments(changes, summed, centre)
    covariates = _covariates(changes, drawn.covariate[unit], summed, moments, centre)
    return Growth(moments, summed(value * value), covariates)


@dataclass(frozen=True, slots=True)
class _Changes:
    """What each request changes of its unit: requests and residual total, before and after."""

    first: Flags
    residual: Floats
    n: tuple[Floats, Floats]
    d: tuple[Floats, Floats]


def _changes(unit: Whole, residual: Floats) -> _Changes:
    first = np.diff(unit, prepend=-1) > 0
    starts = np.flatnonzero(first)
    sizes = np.diff(starts, append=unit.size)
    running = np.cumsum(residual)
    after = running - np.repeat((running - residual)[starts], sizes)
    before = np.where(first, 0.0, after - residual)
    many = (np.arange(unit.size) - np.repeat(starts, sizes)).astype(np.float64)
    return _Changes(first, residual, (many, many + 1.0), (before, after))


def _moments(changes: _Changes, summed: Summed, centre: float) -> Moments:
    n_early, n_late = map(_powers, changes.n)
    d_early, d_late = map(_powers, changes.d)
    rises = {name: summed(n_late[i] * d_late[j] - n_early[i] * d_early[j]) for name, (i, j) in POWERS.items()}
    return Moments.about(
        centre,
        units=summed(changes.first.astype(np.float64)),
        n=summed(np.ones_like(changes.residual)),
        d=summed(changes.residual),
        **rises,
    )


def _covariates(
    changes: _Changes, covariate: Floats, summed: Summed, moments: Moments, centre: float
) -> CovariateMoments | None:
    if not covariate.any():
        return None
    first, residual = changes.first, changes.residual
    (n_early, n_late), (d_early, d_late) = changes.n, changes.d
    nn, nd = n_late**2 - n_early**2, n_late * d_late - n_early * d_early
    mean = summed(covariate * first) / moments.units
    about_zero = CovariateMoments(
        units=moments.units,
        mean=np.zeros_like(mean),
        n=moments.n,
        nn=moments.nn,
        d=summed(residual),
        nd=summed(nd),
        ee=mean,
        ne=summed(covariate),
        de=summed(covariate * residual),
        nde=summed(covariate * nd),
        nne=summed(covariate * nn),
        nnee=summed(covariate**2 * nn),
    )
    squares = summed(covariate**2 * first) - mean**2 * moments.units
    return replace(about_zero.moved(moments.ratio - centre, mean), ee=squares)


def _powers(base: Floats) -> tuple[Floats, ...]:
    square = base * base
    return (np.ones_like(base), base, square, square * base, square * square)
