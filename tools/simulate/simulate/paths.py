"""The whole way of a comparison, looked at a hundred times: false claims, coverage, power, and when it stops."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import TypeVar

import numpy as np

from fairlead.experiment.covariate import CovariateMoments
from fairlead.experiment.sums import Moments
from simulate.accrual import Growth, grow, totals
from simulate.judging import NAIVE, Pair, at_first, ever, first, naive_requests, since
from simulate.planned import effect_for, share_for
from simulate.population import Flags, Floats, Population, Requests, Value, Whole, requests
from simulate.setting import Columns

Sums = TypeVar("Sums", Moments, CovariateMoments)

CAP = 50
"""The product's default."""
PILOT_RUNS = 20
EARLY = 10.0
"""How much less information the interval is tuned to than there will be, in the worst case that is tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An experiment of one step, judged at every look in the scale of the metric and relatively."""

    population: Population
    cap: int | None = CAP
    looks: int = 100
    new_units: int | None = None
    """Look whenever so many new units have come, instead of after equal parts of the traffic."""
    minimum_effect: float | None = None
    """Absolute. None: the one for which the planned end is where the data ends."""

    def __call__(self, rng: np.random.Generator, runs: int) -> Columns:
        """Simulate so many runs."""
        grown = [self.grown(rng) for _ in range(runs)]
        moments = stacked([one.moments for one in grown])
        squares = np.stack([one.squares for one in grown])
        return self._columns(self.pair(moments), naive_requests(moments, squares))

    def grown(self, rng: np.random.Generator) -> Growth:
        """Simulate one run until each look."""
        drawn = requests(self.population, rng)
        centre = self._centre
        if self.new_units is None:
            return grow(drawn, looks=self.looks, cap=self.cap, centre=centre)
        counted = np.ones(drawn.unit.size, np.bool_) if self.cap is None else drawn.ordinal < self.cap
        look = looks_per_units(drawn, self.new_units, self.looks)
        return totals(drawn, look, counted, looks=self.looks, centre=centre)

    @property
    def _centre(self) -> float:
        return self.population.mean if self.population.value is Value.PROPORTION else 1.0

    def pair(self, moments: Moments) -> Pair:
        """Return control and the first treatment, as this population's gate has it."""
        return Pair.of(
            moments,
            is_bounded=self.population.value is Value.PROPORTION,
            smallest_share=min(self.population.shares),
        )

    def _planned(self, effect: float, power: float) -> float:
        return share_for(piloted(self), effect, power=power)

    def _columns(self, pair: Pair, naive: Flags) -> Columns:
        truth, lift = self.population.truth, self.population.lift
        effect = self.minimum_effect or tuned(self)
        path, log_path = pair.absolute(), pair.relative()
        log_effect = abs(np.log1p(-effect / self._centre))
        missed = path.outside(truth, effect=effect)
        found = path.outside(0.0, effect=effect)
        stop = first(found)
        is_open = path.is_open[:, -1]
        width = path.half_width(effect=effect)[:, -1] / (NAIVE * path.difference.deviation[:, -1])
        sign = np.sign(path.difference.effect) != np.sign(truth or np.nan)
        return {
            "missed": ever(missed),
            "missed_relative": ever(log_path.outside(np.log1p(lift), effect=log_effect)),
            "missed_early": ever(path.outside(truth, effect=effect * np.sqrt(EARLY))),
            "missed_ungated": ever(path.outside(truth, effect=effect, gated=False)),
            "found": ever(found),
            "stop": stop,
            "wrong_sign": ever(found & sign) if truth else np.full(stop.size, np.nan),
            "overstated": at_first(found, path.difference.effect / truth) if truth else np.full(stop.size, np.nan),
            "requests_z": ever(naive),
            "units_z": ever(path.naively_outside(truth)),
            "units_z_end": path.naively_outside(truth)[:, -1].astype(float),
            "units_z_found_end": path.naively_outside()[:, -1].astype(float),
            "tested": ever(path.is_open),
            "tested_end": is_open.astype(float),
            "width": np.where(is_open, width, np.nan),
            "n_eff": pair.n_eff()[:, -1],
            "planned": np.full(stop.size, self._planned(effect, 0.5)),
            "planned_80": np.full(stop.size, self._planned(effect, 0.8)),
            "information_half": path.information[:, path.information.shape[1] // 2 - 1] / path.information[:, -1],
            "missed_curve": since(missed),
            "found_curve": since(found),
            "requests_z_curve": since(naive),
            "units_z_curve": since(path.naively_outside(truth)),
        }


def tuned(comparison: Comparison) -> float:
    """Return the absolute effect for which the planned end of a comparison is where its data ends."""
    return effect_for(float(piloted(comparison)[-1]))


@cache
def piloted(comparison: Comparison) -> Floats:
    """Return the information that a comparison has at each look, [looks], by a pilot of its own seed.

    So it is fixed before the first run, as a minimum effect and a plan are.
    """
    rng = np.random.default_rng(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        pilots = [comparison.pair(comparison.grown(rng).moments).absolute().information for _ in range(PILOT_RUNS)]
    return np.asarray(np.median(pilots, axis=0))


def looks_per_units(drawn: Requests, new_units: int, looks: int) -> Whole:
    """Return at which look each request is first seen, if one looks whenever so many new units have come."""
    firsts = np.sort(drawn.time[np.diff(drawn.unit, prepend=-1) > 0])
    ends = firsts[new_units - 1 : new_units * looks : new_units]
    return np.searchsorted(ends, drawn.time)


def stacked(parts: list[Sums]) -> Sums:
    """Return the moments of several runs as one, with the runs as first axis."""
    kind = type(parts[0])
    return kind(**{one.name: np.stack([getattr(part, one.name) for part in parts]) for one in fields(kind)})
