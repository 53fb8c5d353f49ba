"""Tests of whether a comparison is sound, and of what has few units: sample ratio, exact guardrails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from fairlead.experiment import sample_ratio
from fairlead.experiment.trials import Limit, Trials, log_e_harm, log_e_safe
from simulate.judging import ALPHA, ever
from simulate.population import Flags, Floats
from simulate.setting import Columns

_LEAST_EXPECTED = 100
"""Units from which on the naive test is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRatio:
    """First exposures come in shares that may not be the planned ones; one looks after every so many."""

    planned: tuple[float, ...]
    true: tuple[float, ...]
    units: int
    step: int = 100

    def __call__(self, rng: np.random.Generator, runs: int) -> Columns:
        """Simulate so many runs."""
        counts = rng.multinomial(self.step, self.true, (runs, self.units // self.step)).cumsum(axis=1)
        seen = self.step * np.arange(1, self.units // self.step + 1)
        found = sample_ratio.log_e(counts, self.planned) >= sample_ratio.alarm()
        return {
            "found": ever(found),
            "units": _when(found, seen),
            "naive": ever(self._chi_square(counts, seen)),
        }

    def _chi_square(self, counts: np.ndarray, seen: np.ndarray) -> Flags:
        expected = seen[:, None] * np.asarray(self.planned)
        statistic = ((counts - expected) ** 2 / expected).sum(axis=-1)
        is_naive = statistic >= chi2.ppf(1 - sample_ratio.ALPHA, len(self.planned) - 1)
        return np.asarray(is_naive & (seen >= _LEAST_EXPECTED))


@dataclass(frozen=True, slots=True, kw_only=True)
class FewUnits:
    """A guardrail of a rare proportion, judged exactly from the first unit on: one value per unit."""

    control: float
    treatment: float
    limit: Limit
    units: int = 2000
    """Over both arms."""
    share: float = 0.5
    step: int = 20
    alpha: float = ALPHA

    def __call__(self, rng: np.random.Generator, runs: int) -> Columns:
        """Simulate so many runs."""
        looks = self.units // self.step
        treated = rng.binomial(self.step, self.share, (runs, looks))
        many = (self.step - treated, treated)
        arms = [
            Trials(one.cumsum(axis=1), rng.binomial(one, rate).cumsum(axis=1))
            for one, rate in zip(many, (self.control, self.treatment), strict=True)
        ]
        seen = self.step * np.arange(1, looks + 1)
        harm, safe = (log_e(arms[0], arms[1], self.limit) >= -np.log(self.alpha) for log_e in (log_e_harm, log_e_safe))
        return {
            "alarm": ever(harm),
            "safe": ever(safe),
            "alarm_units": _when(harm, seen),
            "safe_units": _when(safe, seen),
        }


def _when(found: Flags, seen: np.ndarray) -> Floats:
    return np.where(found.any(axis=1), seen[found.argmax(axis=1)].astype(float), np.inf)
