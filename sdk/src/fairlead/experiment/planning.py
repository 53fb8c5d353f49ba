"""How many units and days an experiment takes, before it starts and while it runs.

With information I = 1 / variance the effect that matters is found with power p once ``|effect| sqrt(I) >= z*(eta² I) +
z_p``. That ignores earlier looks, which find it sooner: simulated stops come 15 to 19 % earlier, on the safe side. At
5 % and the usual width it takes I x effect² = 9.3 for even odds (the median stop), 15.0 for 80 %, 18.7 for 90 %; a
single test at a fixed end takes 7.8 for 80 %, which is the price of looking at any time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

from fairlead.experiment.bounds import ETA, one_sided, two_sided
from fairlead.experiment.design import Better, Design, Effect, Scale
from fairlead.experiment.errors import UnfitDesign
from fairlead.experiment.estimate import estimate
from fairlead.experiment.sums import Moments

POWER = 0.8
_BISECTIONS = 80
_DAY_S = 86_400.0


def information_needed(effect: float, *, alpha: float, power: float = POWER, sides: int = 2) -> float:
    """Return the information (1 / variance of the effect) that finds an effect with some power.

    Args:
        effect: True effect, which is also what the mixture's width is made for; > 0.
        alpha: Of the claim.
        power: 0.5 gives the median stop.
        sides: 2 for an objective, 1 for a guardrail.
    """
    bound = two_sided if sides == 2 else one_sided  # noqa: PLR2004 -- of an interval
    missing = NormalDist().inv_cdf(power)
    low, high = 0.0, 60.0  # ln of information x effect²
    low = -low - 5.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        scaled = math.exp(middle)
        is_enough = math.sqrt(scaled) >= float(bound(ETA**2 * scaled, alpha=alpha)) + missing
        low, high = (low, middle) if is_enough else (middle, high)
    return math.exp(high) / effect**2


def size_of(effect: Effect, better: Better, *, is_gain: bool) -> float:
    """Return how far an effect is from none on the scale of the analysis (logarithms, if relative).

    Args:
        effect: As designed, whatever its direction.
        better: Which direction is better.
        is_gain: Whether it is a change for the better (minimum effect) or for the worse (margin).
    """
    if effect.scale is Scale.ABSOLUTE:
        return effect.size
    goes_up = (better is Better.HIGHER) == is_gain
    return math.log1p(effect.size) if goes_up else -math.log1p(-effect.size)


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is known of a metric before the start: from an A/A log, or from what control answered so far."""

    value: float
    """The metric."""
    deviation: float
    """Of unit residuals, per request of the average unit: sqrt(units x variance of the ratio)."""

    @classmethod
    def of(cls, moments: Moments) -> Baseline:
        """Take it from sums over units of one arm, with the same cap and window as the experiment's."""
        arm = estimate(moments)
        return cls(value=float(arm.ratio), deviation=math.sqrt(float(arm.variance) * float(arm.units)))

    @classmethod
    def of_proportion(cls, rate: float, *, requests_per_unit: float = 1.0, correlation: float = 0.0) -> Baseline:
        """Guess it of a proportion.

        Args:
            rate: 0 to 1.
            requests_per_unit: On average, of those that count.
            correlation: Of a unit's requests among themselves, 0 (none) to 1 (all alike).
        """
        spread = (1 + (requests_per_unit - 1) * correlation) / requests_per_unit
        return cls(value=rate, deviation=math.sqrt(rate * (1 - rate) * spread))


@dataclass(frozen=True, slots=True)
class Need:
    """What an experiment takes in its last phase."""

    units: int
    """Over all arms."""
    median_units: int
    """After which half of the experiments with just the minimum effect have decided."""
    days: float
    """Of the last phase, with the wait for the last outcomes."""
    fits: bool
    """Whether the maximum duration allows for it."""


def need(design: Design, baseline: Baseline, *, units_per_day: float, power: float = POWER) -> Need:
    """Return what a design's objective takes.

    Args:
        design: With an objective.
        baseline: Of the objective's metric.
        units_per_day: New units that are exposed, over all arms.
        power: Share of experiments with just the minimum effect that decide.

    Raises:
        UnfitDesign: There is no objective, or its effect is relative to a value that is not positive.
    """
    if design.objective is None:
        raise UnfitDesign("there is no objective to plan for")
    better, effect = design.objective.metric.better, design.objective.minimum_effect
    if effect.scale is Scale.RELATIVE and baseline.value <= 0:
        raise UnfitDesign(f"{design.objective.metric.name}: a relative effect needs a metric that is above 0")
    size = size_of(effect, better, is_gain=True)
    deviation = baseline.deviation / (baseline.value if effect.scale is Scale.RELATIVE else 1.0)
    shares = design.shares(design.phases[-1].number)
    per_unit = _variance_of_one_unit(shares, design.control) * deviation**2
    alpha = design.alpha / len(design.treatments)
    units, median = (math.ceil(per_unit * information_needed(size, alpha=alpha, power=each)) for each in (power, 0.5))
    days = units / units_per_day + design.outcome_window_s / _DAY_S if units_per_day > 0 else math.inf
    allowed = design.maximum_duration_s
    return Need(units=units, median_units=median, days=days, fits=allowed is None or days * _DAY_S <= allowed)


def _variance_of_one_unit(shares: Mapping[str, float], control: str) -> float:
    """Return the variance of the widest comparison, times all units, where a unit's own variance is 1."""
    treatments = [share for arm, share in shares.items() if arm != control and share > 0]
    if not treatments or shares[control] <= 0:
        raise UnfitDesign("the last phase compares nobody: control and treatments need a share")
    return 1 / shares[control] + 1 / min(treatments)
