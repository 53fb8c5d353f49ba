"""Adjustment by what was known at a unit's first exposure."""

from __future__ import annotations

import numpy as np
import pytest

from fairlead.experiment.covariate import CovariateMoments, adjusted, tie
from fairlead.experiment.covariate_balance import differs
from fairlead.experiment.estimate import absolute, estimate, relative
from fairlead.experiment.sums import Array, Moments

Units = tuple[Array, Array, Array]


def units_of(seed: int, *, units: int = 2000, lift: float = 0.0) -> Units:
    rng = np.random.Generator(np.random.Philox(seed))
    n = np.minimum(rng.zipf(1.8, units), 50).astype(np.float64)
    effect = rng.normal(size=units)
    covariate = 100 + 0.8 * effect + 0.6 * rng.normal(size=units)
    x = n * (2.0 + lift + effect) + np.sqrt(n) * rng.normal(size=units)
    return n, x, covariate


def moments_of(units: Units) -> tuple[Moments, CovariateMoments]:
    moments = Moments.of(*units[:2])
    return moments, CovariateMoments.of(*units, ratio=moments.ratio)


@pytest.mark.parametrize("by_request", [False, True])
def test_a_tie_is_the_closed_form_over_units(by_request: bool) -> None:
    n, x, c = units_of(1)
    found = tie(*moments_of((n, x, c)), by_request=by_request)
    ratio, total, m = x.sum() / n.sum(), n.sum(), n.size
    if by_request:
        mean = (n * c).sum() / total
        covariance = (
            (n * c * x).sum() - mean * (n * x).sum() - ratio * ((n**2 * c).sum() - mean * (n**2).sum())
        ) / total**2
        variance = (n**2 * (c - mean) ** 2).sum() / total**2
    else:
        mean = c.mean()
        covariance = ((x * c).sum() - ratio * (n * c).sum()) / (total * m)
        variance = ((c**2).sum() - m * mean**2) / m**2
    assert found.mean == pytest.approx(mean)
    assert found.covariance == pytest.approx(covariance, rel=1e-6)
    assert found.variance == pytest.approx(variance, rel=1e-6)


@pytest.mark.parametrize("by_request", [False, True])
def test_the_interval_is_narrower_and_the_effect_the_same(by_request: bool) -> None:
    effects = []
    for seed in range(40):
        arms = [moments_of(units_of(2 * seed)), moments_of(units_of(2 * seed + 1, lift=0.3))]
        plain = absolute(*(estimate(moments) for moments, _ in arms))
        control, treatment = (tie(*arm, by_request=by_request) for arm in arms)
        better = adjusted(plain, control, treatment, scale=(1.0, 1.0))
        assert better.variance < 0.95 * plain.variance
        effects.append(float((better.effect - 0.3) / better.deviation))
    assert abs(np.mean(effects)) < 0.5
    assert 0.6 < np.std(effects) < 1.4


def test_both_scales_gain_the_same() -> None:
    arms = [moments_of(units_of(seed)) for seed in (1, 2)]
    estimates = [estimate(moments) for moments, _ in arms]
    control, treatment = (tie(*arm, by_request=False) for arm in arms)
    plain, logs = absolute(*estimates), relative(*estimates)
    gain = adjusted(plain, control, treatment, scale=(1.0, 1.0)).variance / plain.variance
    ratios = (estimates[0].ratio, estimates[1].ratio)
    assert adjusted(logs, control, treatment, scale=ratios).variance / logs.variance == pytest.approx(gain, rel=0.05)


def test_a_covariate_that_says_nothing_changes_nothing() -> None:
    n, x, _ = units_of(1)
    arm = moments_of((n, x, np.full(n.size, 7.0)))
    plain = absolute(estimate(arm[0]), estimate(arm[0]))
    same = adjusted(plain, tie(*arm, by_request=False), tie(*arm, by_request=False), scale=(1.0, 1.0))
    assert (same.effect, same.variance) == (plain.effect, plain.variance)


def test_units_without_a_covariate_are_left_out_of_its_mean() -> None:
    n, x, c = units_of(1)
    unknown = np.where(np.arange(n.size) % 3 == 0, np.nan, c)
    _, known = moments_of((n, x, unknown))
    assert known.units == n.size - len(range(0, n.size, 3))
    assert known.mean == pytest.approx(np.nanmean(unknown))


def test_a_covariate_that_is_broken_is_left_out() -> None:
    n, x, c = units_of(1)
    broken = np.where(np.arange(n.size) == 7, 1e300, c)
    _, known = moments_of((n, x, broken))
    assert known.units == n.size - 1
    assert np.isfinite(known.ee)


def test_activity_that_the_treatment_raises_is_taken_out_by_requests_alone() -> None:
    """A ratio moves when good units come more often; weighting the covariate by requests answers another question."""
    control, treated = units_of(1, units=20_000), units_of(2, units=20_000)
    n, x, c = treated
    more = np.where(c > 100, 2.0, 1.0)
    arms = [moments_of(control), moments_of((n * more, x * more, c))]
    plain = absolute(*(estimate(moments) for moments, _ in arms))
    by_unit, by_request = (
        adjusted(plain, *(tie(*arm, by_request=each) for arm in arms), scale=(1.0, 1.0)) for each in (False, True)
    )
    assert plain.effect > 0.1
    assert by_unit.effect > 0.1
    assert abs(by_request.effect) < abs(by_unit.effect)


def test_a_covariate_that_the_treatment_made_is_found() -> None:
    """One that moves with the effect; adjusting by it would take the effect out."""
    control, (n, x, c) = units_of(1), units_of(2, lift=0.5)
    assert differs(moments_of(control)[1], moments_of((n, x, c + 0.3))[1])


def test_a_sound_covariate_is_left_alone_at_every_look() -> None:
    rng = np.random.Generator(np.random.Philox(3))
    found = 0
    for _ in range(200):
        one, two = rng.normal(5.0, 2.0, (2, 2000))
        looks = [
            CovariateMoments.of(np.ones(m), np.ones(m), c[:m], ratio=1.0) for m in (50, 200, 2000) for c in (one, two)
        ]
        found += any(bool(differs(*pair)) for pair in zip(looks[::2], looks[1::2], strict=True))
    assert found <= 4


def test_without_units_nothing_differs() -> None:
    empty = CovariateMoments.of(np.ones(0), np.ones(0), np.ones(0), ratio=0.0)
    assert not differs(empty, empty)
    assert not differs(empty, moments_of(units_of(1))[1])
