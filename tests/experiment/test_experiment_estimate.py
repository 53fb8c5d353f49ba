"""Ratio, variance and effective units of an arm; differences of two; the gate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.experiment import gate
from fairlead.experiment.estimate import ArmEstimate, absolute, estimate, larger, relative
from fairlead.experiment.sums import Array, Moments

SEEDS = st.integers(0, 10_000)


def units_of(seed: int, units: int = 300, level: float = 1.0) -> tuple[Array, Array]:
    rng = np.random.Generator(np.random.Philox(seed))
    n = np.minimum(rng.zipf(1.7, units), 50).astype(np.float64)
    return n, n * level * rng.gamma(5.0, 0.2, units)


@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_the_variance_is_the_closed_form_over_units(seed: int) -> None:
    n, x = units_of(seed)
    arm = estimate(Moments.of(n, x))
    a, b, c, m = (x**2).sum(), (x * n).sum(), (n**2).sum(), n.size
    ratio = x.sum() / n.sum()
    assert arm.ratio == pytest.approx(ratio)
    assert arm.variance == pytest.approx(m / (m - 1) * (a - 2 * ratio * b + ratio**2 * c) / n.sum() ** 2)
    d = x - ratio * n
    assert arm.n_eff == pytest.approx((d**2).sum() ** 2 / (d**4).sum())


def test_with_one_request_per_unit_it_is_the_variance_of_a_mean() -> None:
    x = np.random.Generator(np.random.Philox(3)).normal(2.0, 1.0, 500)
    arm = estimate(Moments.of(np.ones(500), x))
    assert arm.variance == pytest.approx(x.var(ddof=1) / 500)


def test_effective_units_of_rare_events_are_their_number() -> None:
    x = np.zeros(10_000)
    x[:30] = 1.0
    assert estimate(Moments.of(np.ones(10_000), x)).n_eff == pytest.approx(30, rel=0.02)


def test_one_heavy_unit_is_seen_to_carry_the_variance() -> None:
    n, x = np.ones(1000), np.random.Generator(np.random.Philox(3)).normal(0.2, 0.1, 1000)
    n[0], x[0] = 5000.0, 5000.0 * 0.5
    assert estimate(Moments.of(n, x)).n_eff < 3


@given(seed=SEEDS, unit=st.floats(1e-6, 1e6))
@settings(max_examples=30, deadline=None)
def test_another_unit_of_measure_changes_no_relative_figure(seed: int, unit: float) -> None:
    one, two = units_of(seed), units_of(seed + 1)
    plain = [estimate(Moments.of(n, x)) for n, x in (one, two)]
    scaled = [estimate(Moments.of(n, x * unit)) for n, x in (one, two)]
    assert relative(*scaled).effect == pytest.approx(relative(*plain).effect, abs=1e-9)
    assert relative(*scaled).variance == pytest.approx(relative(*plain).variance)
    assert absolute(*scaled).effect == pytest.approx(absolute(*plain).effect * unit)
    assert [arm.n_eff for arm in scaled] == pytest.approx([arm.n_eff for arm in plain])


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_swapping_the_arms_swaps_the_sign(seed: int) -> None:
    one, two = (estimate(Moments.of(*units_of(each))) for each in (seed, seed + 1))
    for scale in (absolute, relative):
        assert scale(one, two).effect == pytest.approx(-scale(two, one).effect)
        assert scale(one, two).variance == pytest.approx(scale(two, one).variance)


@pytest.mark.parametrize("units", [0, 1])
def test_less_than_two_units_say_nothing(units: int) -> None:
    arm = estimate(Moments.of(np.ones(units), np.ones(units)))
    assert arm.variance == np.inf
    assert arm.n_eff == 0


def test_a_logarithm_of_nothing_is_no_number() -> None:
    zero, one = estimate(Moments.of(np.ones(5), np.zeros(5))), estimate(Moments.of(np.ones(5), np.ones(5)))
    assert np.isnan(relative(zero, one).effect)
    assert np.isnan(relative(one, zero).effect)


def test_the_larger_variance_counts_with_its_own_effective_units() -> None:
    calm = ArmEstimate(ratio=1.0, variance=1.0, n_eff=100.0, units=400)
    shaken = ArmEstimate(ratio=1.1, variance=4.0, n_eff=3.0, units=30)
    assert larger(calm, shaken) == ArmEstimate(ratio=1.0, variance=4.0, n_eff=3.0, units=400)
    assert larger(shaken, calm) == shaken
    assert larger(calm, ArmEstimate(ratio=1.0, variance=np.inf, n_eff=0.0, units=1)) == calm


def test_estimates_of_many_looks_are_those_of_each() -> None:
    rng = np.random.Generator(np.random.Philox(5))
    n, x = np.ones((4, 3, 200)), rng.normal(1.0, 0.2, (4, 3, 200))
    arms = [estimate(Moments.of(n, values)) for values in (x, x[::-1])]
    one = [estimate(Moments.of(n[2, 1], values[2, 1])) for values in (x, x[::-1])]
    assert relative(*arms).effect.shape == (4, 3)
    assert relative(*arms).effect[2, 1] == pytest.approx(relative(*one).effect)
    assert gate.is_open(*arms, effective_units=25).shape == (4, 3)


def arm(n_eff: float = 100.0, units: int = 200, variance: float = 1.0) -> ArmEstimate:
    return ArmEstimate(ratio=1.0, variance=variance, n_eff=n_eff, units=units)


@pytest.mark.parametrize(
    ("control", "treatment", "opens"),
    [
        (arm(), arm(), True),
        (arm(n_eff=24.9), arm(), False),
        (arm(), arm(n_eff=24.9), False),
        (arm(units=99), arm(), False),
        (arm(variance=0.0), arm(), False),
    ],
)
def test_the_gate_wants_enough_in_both_arms(control: ArmEstimate, treatment: ArmEstimate, opens: bool) -> None:
    assert gate.is_open(control, treatment, effective_units=25.0) == opens


@pytest.mark.parametrize(
    ("is_bounded", "share", "needed"), [(True, 0.5, 10.0), (True, 1 / 3, 10.0), (True, 0.1, 25.0), (False, 0.5, 25.0)]
)
def test_the_gate_is_lower_only_where_skews_cancel(is_bounded: bool, share: float, needed: float) -> None:
    assert gate.needed(is_bounded=is_bounded, smallest_share=share) == needed
