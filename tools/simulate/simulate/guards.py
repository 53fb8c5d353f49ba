"""Guardrails, covariates and several treatments: what is claimed beside the plain two-sided comparison."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm

from fairlead.experiment import bounds
from fairlead.experiment.covariate import CovariateMoments, adjusted, tie
from fairlead.experiment.estimate import Difference
from fairlead.experiment.quantile import QuantileEstimate, estimate_quantile
from fairlead.experiment.sums import Moments
from fairlead.experiment.tail import TailSums, edge_of
from simulate.judging import ALPHA, Pair, Path, arm, ever, first
from simulate.paths import Comparison, stacked, tuned
from simulate.population import Flags, Floats, Population, Requests, requests
from simulate.setting import Columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A guardrail of a mean that should be low, judged one-sided on each side, with a relative margin."""

    comparison: Comparison
    margin: float = 0.1
    alarm_alpha: float = ALPHA / 4
    """Alarms share alpha over guardrails and phases: here two of each."""

    def __call__(self, rng: np.random.Generator, runs: int) -> Columns:
        """Simulate so many runs."""
        moments = stacked([self.comparison.grown(rng).moments for _ in range(runs)])
        path = self.comparison.pair(moments).relative()
        size = float(np.log1p(self.margin))
        u = bounds.clock(path.difference.variance, effect=size)
        beyond = (path.difference.effect - size) / path.difference.deviation
        alarm = (bounds.log_e_one_sided(beyond, u) >= -np.log(self.alarm_alpha)) & path.is_open
        safe = (bounds.log_e_one_sided(-beyond, u) >= -np.log(ALPHA)) & path.is_open
        return {"alarm": ever(alarm), "safe": ever(safe), "stop_alarm": first(alarm), "stop_safe": first(safe)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjusted:
    """A comparison without and with its covariate, by the mean over units and by that over requests."""

    comparison: Comparison

    def __call__(self, rng: np.random.Generator, runs: int) -> Columns:
        """Simulate so many runs."""
        grown = [self.comparison.grown(rng) for _ in range(runs)]
        moments = stacked([one.moments for one in grown])
        known = stacked([one.covariates for one in grown if one.covariates is not None])
        plain = self.comparison.pair(moments).absolute()
        effect = self.comparison.minimum_effect or tuned(self.comparison)
        paths = {"plain": plain} | {
            name: replace(plain, difference=self._adjusted(plain.difference, moments, known, by_request=by_request))
            for name, by_request in (("units", False), ("requests", True))
        }
        return {
            f"{column}_{name}": values
            for name, path in paths.items()
            for column, values in self._told(path, plain, effect).items()
        }

    def _told(self, path: Path, plain: Path, effect: float) -> Columns:
        found = path.outside(0.0, effect=effect)
        return {
            "missed": ever(path.outside(self.comparison.population.truth, effect=effect)),
            "found": ever(found),
            "stop": first(found),
            "effect": np.asarray(path.difference.effect)[:, -1],
            "variance_ratio": np.asarray(path.difference.variance / plain.difference.variance)[:, -1],
        }

    @staticmethod
    def _adjusted(plain: Difference, moments: Moments, known: CovariateMoments, *, by_request: bool) -> Difference:
        control, treatment = (tie(arm(moments, one), _arm(known, one), by_request=by_request) for one in (0, 1))
        return adjusted(plain, control, treatment, scale=(1.0, 1.0))


def _arm(known: CovariateMoments, index: int) -> CovariateMoments:
    return CovariateMoments(**{name: getattr(known, name)[..., index] for name in CovariateMoments.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class SeveralArms:
    """Several treatments against one control; claims share alpha."""

    comparison: Comparison

    def __call__(self, rng: np.random.Generator, runs: int) -> Columns:
        """Simulate so many runs."""
        moments = stacked([self.comparison.grown(rng).moments for _ in range(runs)])
        shares = self.comparison.population.shares
        effect = self.comparison.minimum_effect or tuned(self.comparison)
        alpha = ALPHA / (len(shares) - 1)
        paths = [
            Pair.of(moments, is_bounded=True, smallest_share=min(shares), treatment=one).absolute()
            for one in range(1, len(shares))
        ]
        wrong = [path.outside(0.0, effect=effect, alpha=alpha) for path in paths]
        uncorrected = [path.outside(0.0, effect=effect) for path in paths]
        return {
            "missed": ever(np.logical_or.reduce(wrong)),
            "uncorrected": ever(np.logical_or.reduce(uncorrected)),
            "tested_end": np.logical_and.reduce([path.is_open[:, -1] for path in paths]).astype(float),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Tails:
    """A quantile of latency, over units that are slow and fast by themselves, with a treatment slower by a factor."""

    population: Population
    factor: float = 1.0
    quantile: float = 0.99
    margin: float = 0.2
    between: float = 0.3
    within: float = 0.4
    """Standard deviations of the latency's logarithm, between units and within them."""
    usual_ms: float = 20.0
    looks: int = 20

    def __call__(self, rng: np.random.Generator, runs: int) -> Columns:
        """Simulate so many runs."""
        flags = np.stack([self._run(rng) for _ in range(runs)])
        names = ("missed_control", "missed_treatment", "missed_ratio", "alarm", "safe", "open")
        told = {name: ever(flags[:, :, place]) for place, name in enumerate(names)}
        return {**told, "stop_alarm": first(flags[:, :, 3]), "stop_safe": first(flags[:, :, 4])}

    def _run(self, rng: np.random.Generator) -> Flags:
        drawn = requests(self.population, rng)
        treated = drawn.arm[drawn.unit] == 1
        own = self.between * rng.standard_normal(self.population.units)
        noise = self.within * rng.standard_normal(drawn.unit.size)
        latency = self.usual_ms * np.exp(own[drawn.unit] + noise) * np.where(treated, self.factor, 1.0)
        look = np.minimum((drawn.time * self.looks).astype(np.int64), self.looks - 1)
        arms = [self._tails(drawn, look, edge_of(latency), index) for index in (0, 1)]
        return np.array([self._judged([tails[look] for tails in arms]) for look in range(self.looks)])

    def _tails(self, drawn: Requests, look: np.ndarray, edge: np.ndarray, index: int) -> list[list[TailSums]]:
        kept = drawn.arm[drawn.unit] == index
        units = np.flatnonzero(drawn.arm == index)
        place = np.searchsorted(units, drawn.unit[kept])
        edges = range(int(edge_of(self.truth)) - _EDGES_BELOW, int(edge_of(self.truth)) + _EDGES_ABOVE)

        def running(weight: Floats) -> Floats:
            cells = np.bincount(look[kept] * units.size + place, weight, minlength=self.looks * units.size)
            return cells.reshape(self.looks, units.size).cumsum(axis=0)

        n = running(np.ones(int(kept.sum())))
        sums = {at: Moments.of(n, running((edge[kept] >= at).astype(np.float64))) for at in edges}
        return [[TailSums(at, _look(moments, one)) for at, moments in sums.items()] for one in range(self.looks)]

    @property
    def truth(self) -> float:
        """Control's quantile, milliseconds."""
        return float(self.usual_ms * np.exp(norm.ppf(self.quantile) * np.hypot(self.between, self.within)))

    def _judged(self, arms: list[list[TailSums]]) -> list[bool]:
        control, treatment = (self._estimated(tails, ALPHA / 2) for tails in arms)
        truth, slower = self.truth, self.truth * self.factor
        low, high = _over(treatment.low, control.high), _over(treatment.high, control.low)
        return [
            not control.low <= truth <= control.high,
            not treatment.low <= slower <= treatment.high,
            not low <= self.factor <= high,
            low > 1 + self.margin,
            high < 1 + self.margin,
            bool(np.isfinite(control.high)),
        ]

    def _estimated(self, tails: list[TailSums], alpha: float) -> QuantileEstimate:
        return estimate_quantile(tails, self.quantile, effect=self.margin, alpha=alpha, one_sided=True)


_EDGES_BELOW, _EDGES_ABOVE = 8, 14
"""Thresholds around the quantile; as many as its interval may reach over."""


def _look(moments: Moments, look: int) -> Moments:
    return Moments(**{name: np.asarray(getattr(moments, name))[look] for name in Moments.__slots__})


def _over(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else np.inf
