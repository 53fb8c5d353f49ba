"""How many units it takes, and when an outcome may be judged."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fairlead.experiment.design import Better, Objective
from fairlead.experiment.errors import UnfitDesign
from fairlead.experiment.maturity import is_mature, residual_bias, window_s
from fairlead.experiment.planning import Baseline, information_needed, need, size_of
from fairlead.experiment.sums import Moments
from support.experiment_worlds import CLICKS, absolute, design_of, relative


@pytest.mark.parametrize(("power", "needed"), [(0.5, 9.3), (0.8, 15.0), (0.9, 18.7)])
def test_the_information_needed_is_the_known_one(power: float, needed: float) -> None:
    assert information_needed(1.0, alpha=0.05, power=power) == pytest.approx(needed, abs=0.05)
    assert information_needed(0.1, alpha=0.05, power=power) == pytest.approx(needed * 100, rel=0.01)


def test_one_side_takes_less_than_two() -> None:
    assert information_needed(1.0, alpha=0.05, sides=1) < information_needed(1.0, alpha=0.05)


@pytest.mark.parametrize(
    ("better", "is_gain", "size"),
    [
        (Better.LOWER, True, -math.log(0.95)),
        (Better.LOWER, False, math.log(1.05)),
        (Better.HIGHER, True, math.log(1.05)),
        (Better.HIGHER, False, -math.log(0.95)),
    ],
)
def test_a_relative_effect_is_a_logarithm_in_its_direction(better: Better, is_gain: bool, size: float) -> None:
    assert size_of(relative(0.05), better, is_gain=is_gain) == pytest.approx(size)
    assert size_of(absolute(0.05), better, is_gain=is_gain) == 0.05


def test_a_proportion_with_one_request_per_unit_takes_what_the_formula_says() -> None:
    design = design_of(objective=Objective(metric=CLICKS, minimum_effect=absolute(0.02)), guardrails=())
    found = need(design, Baseline.of_proportion(0.2), units_per_day=1000)
    expected = 15.03 * 0.2 * 0.8 / (0.25 * 0.02**2)
    assert found.units == pytest.approx(expected, rel=0.01)
    assert found.median_units < found.units
    assert found.days == pytest.approx(found.units / 1000)
    assert found.fits


def test_requests_that_are_all_alike_are_one() -> None:
    alike = Baseline.of_proportion(0.2, requests_per_unit=10, correlation=1.0)
    assert alike == Baseline.of_proportion(0.2)
    assert Baseline.of_proportion(0.2, requests_per_unit=10).deviation < alike.deviation


def test_a_log_of_control_gives_the_same_as_its_variance() -> None:
    x = np.random.Generator(np.random.Philox(1)).normal(5.0, 2.0, 1000)
    baseline = Baseline.of(Moments.of(np.ones(1000), x))
    assert baseline.deviation == pytest.approx(x.std(ddof=1))


def test_more_treatments_and_smaller_shares_take_more_units() -> None:
    objective = Objective(metric=CLICKS, minimum_effect=relative(0.1))
    baseline = Baseline.of_proportion(0.2)
    even, few, three = (
        need(design_of(objective=objective, guardrails=(), **more), baseline, units_per_day=100).units
        for more in ({"steps": (5000,)}, {"steps": (1000,)}, {"steps": (6000,), "treatments": ("a", "b")})
    )
    assert few == pytest.approx(even * 0.25 / 0.09, rel=0.01)
    assert three > even * 1.5


def test_a_maximum_duration_that_is_too_short_is_told() -> None:
    objective = Objective(metric=CLICKS, minimum_effect=relative(0.05))
    design = design_of(objective=objective, guardrails=(), maximum_duration_s=86_400.0)
    assert not need(design, Baseline.of_proportion(0.2), units_per_day=1000).fits
    assert need(design, Baseline.of_proportion(0.2), units_per_day=0).days == math.inf


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(UnfitDesign, match="no objective"):
        need(design_of(objective=None), Baseline(1.0, 1.0), units_per_day=1)
    with pytest.raises(UnfitDesign, match="above 0"):
        need(design_of(), Baseline(0.0, 1.0), units_per_day=1)
    with pytest.raises(UnfitDesign, match="compares nobody"):
        need(design_of(steps=(0,)), Baseline(1.0, 1.0), units_per_day=1)


def test_a_prediction_is_mature_once_it_is_older_than_the_window() -> None:
    assert not is_mature(1_000_000, window_s=10.0, now_us=11_000_000)
    assert is_mature(1_000_000, window_s=10.0, now_us=11_000_001)


def test_the_window_is_the_slower_arms() -> None:
    rng = np.random.Generator(np.random.Philox(1))
    fast, slow = rng.exponential(1.0, 20_000), rng.exponential(2.0, 20_000)
    assert window_s([fast, slow]) == np.quantile(slow, 0.999)


@pytest.mark.parametrize(("window", "bias"), [(0.5, -0.0013), (0.1, -0.0465)])
def test_the_residual_bias_is_the_known_one(window: float, bias: float) -> None:
    complete = [1 - math.exp(-window / mean) for mean in (0.05, 0.10)]
    assert residual_bias(0.2, control=complete[0], treatment=complete[1]) == pytest.approx(bias, abs=5e-5)
