"""What goes wrong around an experiment: ramps while the world drifts, outages, late labels, stalls."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fairlead.experiment.sums import Moments, tempered
from simulate.population import Flags, Floats, Population, Requests, Whole, requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """A treatment whose share is raised at a moment, in a world whose mean changes meanwhile."""

    until: float = 0.3
    """When the first step ends."""
    shares: tuple[float, float] = (0.1, 0.5)
    """Of the treatment, in either step."""
    growth: float = 2.0
    """What the mean is multiplied with in the end."""
    is_sudden: bool = True
    """It changes with the step, or else evenly all the time."""

    def world(self, time: Floats) -> Floats:
        """Return what the mean is multiplied with."""
        if self.is_sudden:
            return np.where(time < self.until, 1.0, self.growth)
        return 1.0 + (self.growth - 1.0) * time


def ramped(ramp: Ramp, population: Population, rng: np.random.Generator) -> tuple[Requests, Requests]:
    """Draw the requests of an A/A comparison in the first and in the second step; a unit may move to the treatment."""
    drawn = requests(population, rng, ramp.world)
    slot = rng.random(population.units)
    early = drawn.time < ramp.until
    first, second = ((slot < share).astype(np.int64) for share in ramp.shares)
    return replace(drawn.only(early), arm=first), replace(drawn.only(~early), arm=second)


def pooled(first: Requests, second: Requests) -> Requests:
    """Return the requests of both steps as if they were one; a unit that moved counts in each arm that it was in."""
    units = first.arm.size
    unit = np.concatenate([first.unit + units * first.arm[first.unit], second.unit + units * second.arm[second.unit]])
    time, value = (np.concatenate([getattr(first, name), getattr(second, name)]) for name in ("time", "value"))
    order = np.lexsort((time, unit))
    arm = np.repeat([0, 1], units)
    return Requests(unit[order], time[order], value[order], arm, np.zeros(2 * units))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outages:
    """A treatment that is out of traffic now and then, just when everything else goes badly, too."""

    most: int = 3
    """Gaps in a run, at least one."""
    share: float = 0.05
    """Of the time, all gaps together."""
    growth: float = 2.0
    """What the mean is multiplied with meanwhile, in both arms."""

    def draw(self, rng: np.random.Generator) -> Gaps:
        """Draw when they are, apart from each other."""
        many = int(rng.integers(1, self.most + 1))
        length = self.share / many
        starts = np.sort(rng.random(many)) * (1.0 - self.share) + length * np.arange(many)
        return Gaps(starts, length, self.growth)


@dataclass(frozen=True, slots=True)
class Gaps:
    """When the treatment is out of traffic."""

    starts: Floats
    length: float
    growth: float

    def at(self, time: Floats) -> Flags:
        """Return whether it is out, at each time."""
        inside = [(time >= start) & (time < start + self.length) for start in self.starts]
        return np.asarray(np.logical_or.reduce(inside))

    def world(self, time: Floats) -> Floats:
        """Return what the mean is multiplied with."""
        return np.where(self.at(time), self.growth, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """When labels come: after exponential times if the value is 1, after a fixed time if it is 0."""

    means: tuple[float, float] = (0.05, 0.10)
    """Of each arm, for ones."""
    of_zeros: float = 0.02

    def draw(self, drawn: Requests, rng: np.random.Generator) -> Floats:
        """Draw how long after its request each label comes, [requests]."""
        mean = np.asarray(self.means)[drawn.arm[drawn.unit]]
        return np.where(drawn.value > 0, mean * rng.standard_exponential(mean.size), self.of_zeros)

    def bias(self, window: float, p: float) -> float:
        """Return what the difference of arms' means is off by if labels count that came within the window."""

        def seen(mean: float) -> float:
            ones = p * -np.expm1(-window / mean)
            return float(ones / (ones + (1.0 - p)))

        control, treatment = (seen(mean) for mean in self.means)
        return treatment - control


def even_looks(time: Floats, looks: int) -> Whole:
    """Return at which look what happens at a time is first seen, if looks are evenly spread over time."""
    return np.maximum(np.ceil(time * looks).astype(np.int64) - 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalls:
    """Servers that stand still now and then: whoever is there waits. Each arm has servers of its own."""

    servers: int = 2
    """Of each arm."""
    minutes: int = 240
    rate: float = 0.02
    """How often one begins, per server and minute."""
    length: float = 3.0
    """Minutes, in the mean; geometric."""
    wait_ms: float = 200.0
    usual_ms: float = 20.0

    def latencies(self, drawn: Requests, rng: np.random.Generator) -> Timed:
        """Draw the server, the minute and the latency of each request."""
        server = rng.integers(self.servers, size=drawn.unit.size) + self.servers * drawn.arm[drawn.unit]
        minute = np.minimum((drawn.time * self.minutes).astype(np.int64), self.minutes - 1)
        usual = self.usual_ms * rng.lognormal(-0.125, 0.5, drawn.unit.size)
        stalled = self._stalled(rng, int(drawn.arm.max()) + 1)
        return Timed(replace(drawn, value=usual + self.wait_ms * stalled[server, minute]), server, minute)

    def _stalled(self, rng: np.random.Generator, arms: int) -> Flags:
        servers = self.servers * arms
        stalled = np.zeros((servers, self.minutes), np.bool_)
        for server, start in np.argwhere(rng.random((servers, self.minutes)) < self.rate):
            stalled[server, start : start + rng.geometric(1.0 / self.length)] = True
        return stalled


@dataclass(frozen=True, slots=True)
class Timed:
    """Requests with their latencies, and which server answered each in which minute."""

    requests: Requests
    server: Whole
    minute: Whole

    def over_units(self, ends: Whole, *, most: int) -> Moments:
        """Return sums over tempered units until each of some minutes, fields [looks, arms]."""
        units = self.requests.arm.size
        n, x = self._running(self.requests.unit, units, ends)
        weight, total = tempered(n, x, most=most)
        return self._by_arm(weight, total, self.requests.arm)

    def over_blocks(self, ends: Whole, *, servers: int, minutes: int) -> Moments:
        """Return sums over blocks of a server and some minutes until each of some minutes, fields [looks, arms]."""
        blocks = -(-int(ends[-1]) // minutes)
        arms = int(self.requests.arm.max()) + 1
        block = self.server * blocks + self.minute // minutes
        n, x = self._running(block, servers * arms * blocks, ends)
        return self._by_arm(n, x, np.arange(servers * arms * blocks) // (servers * blocks))

    def _running(self, cluster: Whole, clusters: int, ends: Whole) -> tuple[Floats, Floats]:
        cell = np.searchsorted(ends, self.minute, side="right") * clusters + cluster
        size = ends.size * clusters
        n, x = (
            np.bincount(cell, weight, minlength=size).reshape(ends.size, clusters).cumsum(axis=0)
            for weight in (None, self.requests.value)
        )
        return n.astype(np.float64), x

    @staticmethod
    def _by_arm(n: Floats, x: Floats, arm: Whole) -> Moments:
        parts = [Moments.of(n[:, arm == one], x[:, arm == one]) for one in range(int(arm.max()) + 1)]
        return stacked(parts)


def stacked(parts: list[Moments]) -> Moments:
    """Return the moments of arms in one, with the arms as last axis."""
    return Moments(**{name: np.stack([getattr(one, name) for one in parts], axis=-1) for name in Moments.__slots__})
