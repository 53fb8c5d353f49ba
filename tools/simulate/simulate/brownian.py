"""The bounds themselves, on Brownian motion: what theory promises, with no estimate in between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fairlead.experiment import bounds
from fairlead.experiment.planning import information_needed
from simulate.judging import ALPHA, ever
from simulate.population import Floats
from simulate.setting import Columns


@dataclass(frozen=True, slots=True, kw_only=True)
class LongWay:
    """Nothing is there, and one looks over many decades of information."""

    low: float = 1e-2
    high: float = 1e4
    """Information from and to, over that of the effect that matters (1 / effect²)."""
    looks: int = 3000

    def __call__(self, rng: np.random.Generator, runs: int) -> Columns:
        """Simulate so many runs."""
        information = np.geomspace(self.low, self.high, self.looks)
        z = _walks(information, 0.0, rng, runs)
        u = bounds.clock(1.0 / information, effect=1.0)
        return {
            "two_sided": ever(np.abs(z) >= bounds.two_sided(u, alpha=ALPHA)),
            "one_sided": ever(z >= bounds.one_sided(u, alpha=ALPHA)),
            "e_two_sided": ever(bounds.log_e_two_sided(z, u) >= -np.log(ALPHA)),
            "e_one_sided": ever(bounds.log_e_one_sided(z, u) >= -np.log(ALPHA)),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """An effect is there, so many times the one that matters: when it is found, and when that was planned."""

    times: float = 1.0
    looks: int = 2000

    def __call__(self, rng: np.random.Generator, runs: int) -> Columns:
        """Simulate so many runs."""
        planned = {power: self._planned(power) for power in (0.5, 0.8, 0.9)}
        information = np.linspace(0.0, 1.5 * planned[0.9], self.looks + 1)[1:]
        found = np.abs(_walks(information, self.times, rng, runs)) >= bounds.two_sided(
            bounds.clock(1.0 / information, effect=1.0), alpha=ALPHA
        )
        stop = np.where(found.any(axis=1), information[found.argmax(axis=1)], np.inf)
        return (
            {"stop": stop}
            | {f"found_by_planned_{power:.0%}": (stop <= planned[power]).astype(float) for power in planned}
            | {f"planned_{power:.0%}": np.full(runs, planned[power]) for power in planned}
        )

    def _planned(self, power: float) -> float:
        return information_needed(1.0, alpha=ALPHA, power=power) / self.times**2


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenClock:
    """Traffic doubles again and again, each time with new effects that outweigh the old; information stands still."""

    doublings: int = 20

    def __call__(self, rng: np.random.Generator, runs: int) -> Columns:
        """Simulate so many runs."""
        weight = 2.0 ** np.arange(self.doublings)
        estimate = np.cumsum(weight * rng.standard_normal((runs, self.doublings)), axis=1)
        z = np.abs(estimate / np.sqrt(np.cumsum(weight**2)))
        return {"two_sided": ever(z >= bounds.two_sided(bounds.best_clock(ALPHA), alpha=ALPHA))}


def _walks(information: Floats, drift: float, rng: np.random.Generator, runs: int) -> Floats:
    steps = np.sqrt(np.diff(information, prepend=0.0)) * rng.standard_normal((runs, information.size))
    return np.asarray((np.cumsum(steps, axis=1) + drift * information) / np.sqrt(information))
