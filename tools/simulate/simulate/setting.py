"""What is simulated: settings, what each run of one yields, and what must be true of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from simulate.population import Floats

_QUANTILE_ERROR = 0.05
"""What quantiles of a few runs are taken to be off by, relative."""

Columns = Mapping[str, Floats]
"""What runs yielded: each [runs], or [runs, looks] for what becomes a curve. NaN where there is nothing to tell."""


class Study(Protocol):
    """How runs of a setting come about."""

    def __call__(self, rng: np.random.Generator, runs: int) -> Columns:
        """Simulate so many runs."""
        ...


@dataclass(frozen=True, slots=True)
class Claim:
    """What must be true of a column: a bound of its mean, median, 90 % quantile or largest value."""

    column: str
    least: float = -math.inf
    most: float = math.inf
    of: str = "mean"

    def holds(self, summary: Mapping[str, float | None], *, slack: float) -> bool:
        """Tell whether it does, give or take ``slack`` standard errors of a mean.

        Fewer runs are judged with slack: they look for what is broken, not for what is measured.
        """
        found = summary[self.of]
        if found is None:
            return False
        spread = summary["se"] if self.of == "mean" else abs(found) * _QUANTILE_ERROR
        give = slack * (spread or 0.0)
        return self.least - give <= found <= self.most + give

    def __str__(self) -> str:
        """Return it in words."""
        what = self.column if self.of == "mean" else f"{self.of} of {self.column}"
        bounds = [f"{self.least:g} <= "] if self.least > -math.inf else [""]
        return bounds[0] + what + (f" <= {self.most:g}" if self.most < math.inf else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One row of a table: a study of so many runs."""

    name: str
    """Unique; names the file of its result."""
    table: str
    """In which table it is told."""
    title: str
    """Its row there."""
    study: Study
    claims: tuple[Claim, ...] = ()
    runs: int = 2000
    """In the full form."""
    chunk: int = 50
    """Runs that are simulated at once, from a seed of their own."""


def summarise(values: Floats) -> dict[str, float | None]:
    """Return how many runs told something, their mean with its standard error, median and 90 % quantile."""
    told = values[~np.isnan(values)]
    if not told.size:
        return {"runs": 0, "mean": None, "se": None, "median": None, "q90": None, "largest": None}
    finite = bool(np.isfinite(told).all())
    mean = float(told.mean()) if finite else math.inf
    spread = float(told.std(ddof=1)) if finite and told.size > 1 else math.inf
    return {
        "runs": float(told.size),
        "mean": _number(mean),
        "se": _number(spread / math.sqrt(told.size)),
        "median": _number(float(np.quantile(told, 0.5, method="higher"))),
        "q90": _number(float(np.quantile(told, 0.9, method="higher"))),
        "largest": _number(float(told.max())),
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
