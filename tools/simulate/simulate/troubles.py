"""Comparisons in which nothing is there but trouble: ramps, outages, late labels, stalls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fairlead.experiment import label_coverage, sample_ratio
from fairlead.experiment.blocks import BLOCK_MINUTES
from fairlead.experiment.estimate import absolute, estimate, larger
from fairlead.experiment.gate import EFFECTIVE_UNITS, is_open
from fairlead.experiment.sums import Moments
from fairlead.experiment.trials import Trials
from simulate.accrual import grow
from simulate.judging import Pair, Path, arm, ever, since
from simulate.paths import CAP, stacked
from simulate.planned import effect_for
from simulate.population import Floats, Population, Requests, requests
from simulate.setting import Columns
from simulate.worlds import Delays, Outages, Ramp, Stalls, even_looks, pooled, ramped


@dataclass(frozen=True, slots=True, kw_only=True)
class RampedComparison:
    """A treatment is raised while the world drifts: judged in the last step alone, and naively over both."""

    ramp: Ramp
    population: Population
    effect: float = 0.02
    """Absolute, that matters."""
    looks: int = 100

    def __call__(self, rng: np.random.Generator, runs: int) -> Columns:
        """Simulate so many runs."""
        drawn = [ramped(self.ramp, self.population, rng) for _ in range(runs)]
        last = self._path([second for _, second in drawn], self.ramp.shares[1])
        first = self._path([first for first, _ in drawn], self.ramp.shares[0])
        both = self._path([pooled(*steps) for steps in drawn], self.ramp.shares[1])
        found = last.outside(0.0, effect=self.effect)
        naive = both.outside(0.0, effect=self.effect, gated=False)
        return {
            "missed": ever(found),
            "missed_first_step": ever(first.outside(0.0, effect=self.effect)),
            "pooled": ever(naive),
            "tested_end": last.is_open[:, -1].astype(float),
            "bias": np.asarray(last.difference.effect)[:, -1],
            "pooled_bias": np.asarray(both.difference.effect)[:, -1],
            "missed_curve": since(found),
            "pooled_curve": since(naive),
        }

    def _path(self, drawn: list[Requests], share: float) -> Path:
        grown = [grow(one, looks=self.looks, cap=CAP, centre=self.population.mean).moments for one in drawn]
        return Pair.of(stacked(grown), is_bounded=True, smallest_share=min(share, 1 - share)).absolute()


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptedComparison:
    """The treatment is out of traffic now and then: nobody is exposed meanwhile, and what if control still was."""

    outages: Outages
    population: Population
    effect: float = 0.02
    looks: int = 100

    def __call__(self, rng: np.random.Generator, runs: int) -> Columns:
        """Simulate so many runs."""
        ours, naive = zip(*(self._run(rng) for _ in range(runs)), strict=True)
        path, naive_path = self._path(list(ours)), self._path(list(naive))
        found = path.outside(0.0, effect=self.effect)
        return {
            "missed": ever(found),
            "control_counted": ever(naive_path.outside(0.0, effect=self.effect)),
            "tested_end": path.is_open[:, -1].astype(float),
            "bias": np.asarray(path.difference.effect)[:, -1],
            "control_counted_bias": np.asarray(naive_path.difference.effect)[:, -1],
        }

    def _run(self, rng: np.random.Generator) -> tuple[Requests, Requests]:
        gaps = self.outages.draw(rng)
        drawn = requests(self.population, rng, gaps.world)
        out = gaps.at(drawn.time)
        is_treated = drawn.arm[drawn.unit] == 1
        return drawn.only(~out), drawn.only(~(out & is_treated))

    def _path(self, drawn: list[Requests]) -> Path:
        grown = [grow(one, looks=self.looks, cap=CAP, centre=self.population.mean).moments for one in drawn]
        shares = self.population.shares
        return Pair.of(stacked(grown), is_bounded=True, smallest_share=min(shares)).absolute()


@dataclass(frozen=True, slots=True, kw_only=True)
class LateLabels:
    """Labels come later in one arm: judged when old enough, and as if what is missing were 0, or not there."""

    delays: Delays
    window: float
    """Of the whole time, after which a request is judged."""
    population: Population
    effect: float = 0.02
    looks: int = 100

    def __call__(self, rng: np.random.Generator, runs: int) -> Columns:
        """Simulate so many runs."""
        counts = np.stack([self._run(rng) for _ in range(runs)], axis=1)
        matured, labelled, positive, asked, known, known_positive = counts
        path = self._path(labelled, positive)
        units = label_coverage.log_e_of_units(tuple(Trials(matured[..., i], labelled[..., i]) for i in (0, 1)))
        coverage = proportions(matured, labelled)
        by_request = label_coverage.log_e_of_requests(arm(coverage, 0), arm(coverage, 1))
        alarm = sample_ratio.alarm(label_coverage.ALPHA / 2)
        broken = np.maximum.accumulate(np.maximum(units, by_request) >= alarm, axis=1)
        found = path.outside(0.0, effect=self.effect)
        return {
            "missed": ever(found),
            "coverage_broken": ever(broken),
            "missed_while_sound": ever(found & ~broken),
            "as_zero": ever(self._path(asked, known_positive).outside(0.0, effect=self.effect)),
            "known_so_far": ever(self._path(known, known_positive).outside(0.0, effect=self.effect)),
            "bias": np.asarray(path.difference.effect)[:, -1],
            "bias_expected": np.full(runs, self.delays.bias(self.window, self.population.mean)),
            "used": labelled[:, -1].sum(axis=-1) / asked[:, -1].sum(axis=-1),
        }

    def _run(self, rng: np.random.Generator) -> Floats:
        drawn = requests(self.population, rng)
        delay = self.delays.draw(drawn, rng)
        is_one, in_time = drawn.value > 0, delay <= self.window
        old, told = drawn.time + self.window, drawn.time + delay
        everything = np.ones_like(in_time)
        asked = ((old, everything), (old, in_time), (old, in_time & is_one))
        naive = ((drawn.time, everything), (told, everything), (told, is_one))
        return np.stack([self._counts(drawn, time, kept) for time, kept in (*asked, *naive)])

    def _counts(self, drawn: Requests, time: Floats, kept: np.ndarray) -> Floats:
        look = even_looks(time, self.looks)
        kept = kept & (look < self.looks)
        cell = look[kept] * 2 + drawn.arm[drawn.unit[kept]]
        return np.bincount(cell, minlength=self.looks * 2).reshape(self.looks, 2).cumsum(axis=0).astype(float)

    def _path(self, n: Floats, x: Floats) -> Path:
        return Pair.of(proportions(n, x), is_bounded=True, smallest_share=min(self.population.shares)).absolute()


@dataclass(frozen=True, slots=True, kw_only=True)
class StalledComparison:
    """Servers stand still now and then, and many units wait at once: judged by units alone, and as the product does."""

    stalls: Stalls
    population: Population
    looks: int = 24

    def __call__(self, rng: np.random.Generator, runs: int) -> Columns:
        """Simulate so many runs."""
        ends = np.linspace(0, self.stalls.minutes, self.looks + 1).astype(np.int64)[1:]
        units, blocks = zip(*(self._run(rng, ends) for _ in range(runs)), strict=True)
        by_unit = stacked(list(units))
        by_block = [stacked([one[length] for one in blocks]) for length in range(len(BLOCK_MINUTES))]
        naive, minutes, path = (self._path(by_unit, by_block[:most]) for most in (0, 1, len(BLOCK_MINUTES)))
        effect = effect_for(float(np.median(path.information[:, -1])))
        return {
            "missed": ever(path.outside(0.0, effect=effect)),
            "missed_ungated": ever(path.outside(0.0, effect=effect, gated=False)),
            "minutes_alone": ever(minutes.outside(0.0, effect=effect)),
            "units_alone": ever(naive.outside(0.0, effect=effect)),
            "tested_end": path.is_open[:, -1].astype(float),
            "variance_ratio": np.asarray(path.difference.variance / naive.difference.variance)[:, -1],
        }

    def _run(self, rng: np.random.Generator, ends: np.ndarray) -> tuple[Moments, list[Moments]]:
        timed = self.stalls.latencies(requests(self.population, rng), rng)
        servers = self.stalls.servers
        blocks = [timed.over_blocks(ends, servers=servers, minutes=length) for length in BLOCK_MINUTES]
        return timed.over_units(ends, most=CAP), blocks

    @staticmethod
    def _path(units: Moments, blocks: list[Moments]) -> Path:
        control, treatment = (
            larger(estimate(arm(units, one)), *(estimate(arm(each, one)) for each in blocks)) for one in (0, 1)
        )
        opened = is_open(control, treatment, effective_units=EFFECTIVE_UNITS)
        return Path(absolute(control, treatment), np.asarray(opened))


def proportions(n: Floats, x: Floats) -> Moments:
    """Return the sums over units of which each has one request, ``x`` of them with the value 1."""
    return Moments.about(0.0, units=n, n=n, d=x, nn=n, dn=x, dd=x, n4=n, dn3=x, d2n2=x, d3n=x, d4=x)
