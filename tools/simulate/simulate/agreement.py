"""The product's intervals beside those of independent packages, where the method is the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlead.experiment import bounds
from fairlead.experiment.estimate import absolute, estimate
from fairlead.experiment.sums import Moments
from simulate.judging import ALPHA, NAIVE
from simulate.peers import ask
from simulate.population import Floats, Population, Requests, requests
from simulate.setting import Columns

TUNING = 5000
"""GrowthBook's default: the number of units that its interval is narrowest at, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Figures of the same experiments, by how much they differ."""

    population: Population
    cap: int | None = 50

    def __call__(self, rng: np.random.Generator, runs: int) -> Columns:
        """Simulate so many runs, and ask the packages once for all of them."""
        cases = [self._case(requests(self.population, rng)) for _ in range(runs)]
        answers = ask("agree.py", cases)
        apart = [_apart(case, answer) for case, answer in zip(cases, answers, strict=True)]
        return {name: np.array([one[name] for one in apart]) for name in apart[0]}

    def _case(self, drawn: Requests) -> dict[str, Any]:
        kept = drawn.only(drawn.ordinal < self.cap) if self.cap else drawn
        arms, asked = [], []
        for index in (0, 1):
            of_arm = kept.only(kept.arm[kept.unit] == index)
            n = np.bincount(of_arm.unit, minlength=kept.arm.size)
            x = np.bincount(of_arm.unit, of_arm.value, minlength=kept.arm.size)
            arms.append({"n": n[n > 0].tolist(), "x": x[n > 0].tolist()})
            asked.append({"unit": of_arm.unit.tolist(), "value": of_arm.value.tolist()})
        return {"alpha": ALPHA, "tuning": TUNING, "arms": arms, "requests": asked}


def _apart(case: dict[str, Any], answer: dict[str, float]) -> dict[str, float]:
    control, treatment = (estimate(Moments.of(arm["n"], arm["x"])) for arm in case["arms"])
    difference = absolute(control, treatment)
    effect, deviation = float(difference.effect), float(difference.deviation)
    sequential = float(bounds.two_sided(answer["clock"], alpha=ALPHA)) * deviation
    fixed = NAIVE * deviation
    return {
        "gbstats": _furthest(effect, sequential, answer["sequential_low"], answer["sequential_high"]),
        "tea_tasting": _furthest(effect, fixed, answer["fixed_low"], answer["fixed_high"]),
        "statsmodels": abs(deviation**2 / answer["clustered_variance"] - 1.0),
    }


def _furthest(effect: float, half: float, low: float, high: float) -> float:
    """Return by how much an interval's ends are apart, over its half width."""
    ends: Floats = np.array([effect - half - low, effect + half - high])
    return float(np.abs(ends).max() / half)
