"""Units, their requests and the values of these, of one experiment whose truth is known.

Time runs from 0, the start, to 1, the planned end. Arm 0 is control, the others are treatments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
World = Callable[[Floats], Floats]

SPREAD = 2.0
"""Standard deviation of the logarithm of lognormal values."""
HEAVY_SHARE = 0.05
"""Of the units, those with the most requests, where these come late."""


class Arrival(StrEnum):
    """When units come."""

    PRESENT = "present"
    """All are there from the start."""
    UNIFORM = "uniform"
    """One after the other, until the end; each makes a request when it comes."""
    HEAVY_LATE = "heavy late"
    """The others in the first half; those with the most requests all at once in the middle."""


class Value(StrEnum):
    """What a request comes to."""

    PROPORTION = "proportion"
    """0 or 1; the chance of 1 is the unit's own, beta distributed."""
    LOGNORMAL = "lognormal"
    """Mean 1; how much of the logarithm's variance is the unit's own is the intraclass correlation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """What units there are and what they do."""

    units: int = 4000
    requests: float = 40_000
    """Expected of all units; where units arrive, one more of each."""
    zipf: float = 0.0
    """The unit of rank r makes requests in proportion to r to the power of minus that."""
    arrival: Arrival = Arrival.UNIFORM
    single: bool = False
    """Each unit makes one request and no more."""
    value: Value = Value.PROPORTION
    mean: float = 0.2
    """Of a request in control, if proportion."""
    icc: float = 0.0
    """Intraclass correlation: what share of the variance of requests lies between units."""
    shares: tuple[float, ...] = (0.5, 0.5)
    """Of the units, those in each arm."""
    lift: float = 0.0
    """What the first treatment changes the mean by, relative."""
    redraws: float = 0.0
    """How often, in expectation, a unit's own mean is drawn anew until the end."""
    covariate: float | None = None
    """Correlation of a covariate, known at the first exposure, with the unit's own mean."""
    activity: float = 0.0
    """How many more requests units with a positive covariate make in the first treatment, relative."""

    @property
    def arms(self) -> int:
        """How many."""
        return len(self.shares)

    @property
    def truth(self) -> float:
        """Absolute effect of the first treatment on the mean per request."""
        return self.lift * (self.mean if self.value is Value.PROPORTION else 1.0)


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests of one experiment, those of a unit in a row and in order of time."""

    unit: Whole
    """[requests], ascending."""
    time: Floats
    """[requests]."""
    value: Floats
    """[requests]."""
    arm: Whole
    """[units]."""
    covariate: Floats
    """[units]."""

    @property
    def ordinal(self) -> Whole:
        """[requests]: the how many-th of its unit each is, from 0."""
        first = np.diff(self.unit, prepend=-1) > 0
        starts = np.flatnonzero(first)
        return np.arange(self.unit.size) - np.repeat(starts, np.diff(starts, append=self.unit.size))

    def only(self, kept: Flags) -> Requests:
        """Return some of the requests."""
        return replace(self, unit=self.unit[kept], time=self.time[kept], value=self.value[kept])


def steady(time: Floats) -> Floats:
    """Return what the mean of requests is multiplied with, at each time: nothing changes."""
    return np.ones_like(time)


def requests(population: Population, rng: np.random.Generator, world: World = steady) -> Requests:
    """Draw the requests of one experiment, in a world that changes for all units alike."""
    arm = np.searchsorted(np.cumsum(population.shares)[:-1], rng.random(population.units), side="right")
    own = _means(population, rng, population.units)
    covariate = _covariate(population, own, rng)
    arrival = _arrivals(population, rng)
    many = _counts(population, arrival, (arm == 1) & (covariate > 0), rng)
    unit = np.repeat(np.arange(population.units), many)
    first = np.diff(unit, prepend=-1) > 0
    time = _times(arrival[unit], unit, first, population, rng)
    mean = own[unit] if population.redraws == 0 else _redrawn(population, unit, time, own, rng)
    mean = mean * world(time) * (1.0 + population.lift * (arm[unit] == 1))
    return Requests(unit, time, _values(population, mean, rng), arm, covariate)


def _means(population: Population, rng: np.random.Generator, size: int) -> Floats:
    if population.value is Value.LOGNORMAL:
        spread = SPREAD * np.sqrt(population.icc)
        return np.asarray(np.exp(spread * rng.standard_normal(size) - spread**2 / 2))
    if population.icc == 0:
        return np.full(size, population.mean)
    weight = 1.0 / population.icc - 1.0
    return rng.beta(population.mean * weight, (1.0 - population.mean) * weight, size)


def _covariate(population: Population, own: Floats, rng: np.random.Generator) -> Floats:
    if population.covariate is None:
        return np.zeros(population.units)
    deviation = np.sqrt(population.mean * (1 - population.mean) * population.icc)
    known = (own - population.mean) / deviation
    noise = np.sqrt(1 - population.covariate**2) * rng.standard_normal(own.size)
    return np.asarray(population.covariate * known + noise)


def _arrivals(population: Population, rng: np.random.Generator) -> Floats:
    units = population.units
    if population.arrival is Arrival.PRESENT:
        return np.zeros(units)
    order = rng.permutation(units) / units
    if population.arrival is Arrival.UNIFORM:
        return order
    return np.where(np.arange(units) < HEAVY_SHARE * units, 0.5, order / 2)


def _counts(population: Population, arrival: Floats, livelier: Flags, rng: np.random.Generator) -> Whole:
    if population.single:
        return np.ones(population.units, np.int64)
    rate = np.arange(1, population.units + 1, dtype=float) ** -population.zipf
    rate *= population.requests / rate.sum() * (1.0 + population.activity * livelier)
    if population.arrival is Arrival.PRESENT:
        return rng.poisson(rate)
    return 1 + rng.poisson(2.0 * rate * (1.0 - arrival))


def _times(arrival: Floats, unit: Whole, first: Flags, population: Population, rng: np.random.Generator) -> Floats:
    drawn = arrival + (1.0 - arrival) * rng.random(unit.size)
    if population.arrival is not Arrival.PRESENT:
        drawn = np.where(first, arrival, drawn)
    below_one = np.minimum(drawn, 1.0 - 1e-9)
    return np.asarray(np.sort(unit + below_one) - unit.astype(np.float64))


def _redrawn(population: Population, unit: Whole, time: Floats, own: Floats, rng: np.random.Generator) -> Floats:
    first = np.diff(unit, prepend=-1) > 0
    since = np.diff(time, prepend=0.0)
    anew = first | (rng.random(unit.size) > np.exp(-population.redraws * since))
    segment = np.cumsum(anew) - 1
    means = _means(population, rng, int(segment[-1]) + 1)
    means[segment[first]] = own[unit[first]]
    return np.asarray(means[segment])


def _values(population: Population, mean: Floats, rng: np.random.Generator) -> Floats:
    if population.value is Value.PROPORTION:
        return (rng.random(mean.size) < mean).astype(np.float64)
    spread = SPREAD * np.sqrt(1.0 - population.icc)
    return np.asarray(mean * np.exp(spread * rng.standard_normal(mean.size) - spread**2 / 2))
