"""Exact tests on one value per unit: fair at any size, and able to find what there is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fairlead.experiment.trials import Limit, Trials, log_e_harm, log_e_safe, log_e_unequal

NONE_WORSE = Limit(slope=1.0, shift=0.0)


def expectation(rates: tuple[float, float], units: tuple[int, int], limit: Limit, *, harm: bool) -> float:
    """Return the e-value's expectation, by enumeration of all outcomes."""
    control, treatment = (np.arange(m + 1.0) for m in units)
    chances = [
        np.array([math.comb(m, k) * p**k * (1 - p) ** (m - k) for k in range(m + 1)])
        for p, m in zip(rates, units, strict=True)
    ]
    c, t = np.meshgrid(control, treatment, indexing="ij")
    arms = Trials(np.full_like(c, units[0]), c), Trials(np.full_like(t, units[1]), t)
    found = (log_e_harm if harm else log_e_safe)(*arms, limit)
    return float((np.exp(found) * np.outer(*chances)).sum())


@pytest.mark.parametrize("limit", [NONE_WORSE, Limit(1.0, 0.1), Limit(1.5, 0.0), Limit(0.8, 0.2)])
@pytest.mark.parametrize("rate", [0.0, 0.02, 0.3, 0.6])
@pytest.mark.parametrize("units", [(1, 1), (3, 20), (25, 12)])
def test_at_the_limit_neither_claim_is_expected_to_win(limit: Limit, rate: float, units: tuple[int, int]) -> None:
    worst = min(limit.slope * rate + limit.shift, 1.0)
    assert expectation((rate, worst), units, limit, harm=True) <= 1 + 1e-9
    assert expectation((rate, worst), units, limit, harm=False) <= 1 + 1e-9


@pytest.mark.parametrize("rates", [(0.2, 0.1), (0.5, 0.2)])
def test_inside_the_hypothesis_it_is_expected_to_lose(rates: tuple[float, float]) -> None:
    assert expectation(rates, (15, 15), NONE_WORSE, harm=True) < 1


def test_a_treatment_that_kills_itself_on_2_percent_is_found() -> None:
    """Control has no error at all: no variance, so no normal approximation would ever be allowed to speak."""
    alarm = -math.log(0.05 / 4)
    assert log_e_harm(Trials(1500, 0.0), Trials(1500, 30.0), Limit(1.0, 0.001)) > alarm
    assert log_e_harm(Trials(9000, 0.0), Trials(1000, 20.0), Limit(1.0, 0.001)) > alarm
    assert log_e_harm(Trials(1500, 30.0), Trials(1500, 30.0), Limit(1.0, 0.001)) < 0


def test_no_errors_in_either_arm_are_shown_safe_in_time() -> None:
    assert log_e_safe(Trials(9000, 0.0), Trials(9000, 0.0), Limit(1.0, 0.001)) > -math.log(0.025)
    assert log_e_safe(Trials(500, 0.0), Trials(500, 0.0), Limit(1.0, 0.001)) < 0


def test_values_between_0_and_1_are_fair_too() -> None:
    """Uniform values have a mean of a half, and less spread than 0 and 1."""
    rng = np.random.Generator(np.random.Philox(2))
    totals = rng.random((4000, 2, 30)).sum(-1)
    control, treatment = (Trials(np.full(4000, 30.0), totals[:, arm]) for arm in (0, 1))
    assert np.exp(log_e_harm(control, treatment, NONE_WORSE)).mean() <= 1


def test_equal_rates_raise_no_alarm_and_unequal_ones_do() -> None:
    assert log_e_unequal((Trials(5000, 4900.0), Trials(5000, 4905.0))) < 0
    assert log_e_unequal((Trials(5000, 4900.0), Trials(5000, 4700.0))) > math.log(200)
    assert log_e_unequal((Trials(500, 490.0), Trials(500, 490.0), Trials(500, 300.0))) > math.log(200)


def test_the_order_of_arms_does_not_matter_for_equality() -> None:
    arms = (Trials(100, 30.0), Trials(200, 90.0))
    assert log_e_unequal(arms) == pytest.approx(float(log_e_unequal(arms[::-1])))


def test_no_units_are_no_evidence() -> None:
    nothing = Trials(0, 0.0)
    assert log_e_harm(nothing, nothing, NONE_WORSE) == pytest.approx(0.0)
    assert log_e_unequal((nothing, nothing)) == pytest.approx(0.0)


def test_a_limit_that_no_share_can_reach_is_never_breached() -> None:
    everything, nothing = Trials(50, 50.0), Trials(50, 0.0)
    assert log_e_harm(nothing, everything, Limit(1.0, 1e9)) < 0
    assert log_e_safe(nothing, nothing, Limit(1.0, 1e9)) > 100
