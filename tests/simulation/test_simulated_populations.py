"""The generators of the simulation suite: what is drawn is what is said, and looks are what whole units sum to."""

import numpy as np
import pytest
from simulate.accrual import Growth, grow, looks_of
from simulate.population import Arrival, Population, Requests, Value, requests
from simulate.worlds import Gaps, Ramp, pooled, ramped

from fairlead.experiment.covariate import CovariateMoments
from fairlead.experiment.sums import Moments

POPULATIONS = {
    "arriving": Population(units=400, requests=4000, zipf=0.6, icc=0.3),
    "present": Population(units=400, requests=4000, zipf=1.1, icc=0.8, arrival=Arrival.PRESENT),
    "heavy late": Population(units=400, requests=4000, zipf=0.6, icc=0.05, arrival=Arrival.HEAVY_LATE),
    "drifting": Population(units=400, requests=4000, icc=0.3, redraws=50.0),
    "lognormal": Population(units=400, requests=4000, zipf=0.6, icc=0.3, value=Value.LOGNORMAL),
    "several arms": Population(units=400, requests=4000, shares=(0.4, 0.3, 0.3)),
    "single": Population(units=400, single=True, mean=0.01),
}


def drawn_of(population: Population, seed: int = 1) -> Requests:
    return requests(population, np.random.default_rng(seed))


@pytest.mark.parametrize("population", POPULATIONS.values(), ids=POPULATIONS)
@pytest.mark.parametrize("cap", [None, 5])
def test_sums_that_grow_are_the_sums_of_whole_units(population: Population, cap: int | None) -> None:
    drawn = drawn_of(population)
    grown = grow(drawn, looks=10, cap=cap, centre=0.2)

    for look in (3, 9):
        seen = drawn.only((looks_of(drawn.time, 10) <= look) & (drawn.ordinal < (cap or drawn.unit.size)))
        n = np.bincount(seen.unit, minlength=population.units)
        x = np.bincount(seen.unit, seen.value, minlength=population.units)
        for arm in range(population.arms):
            of_arm = drawn.arm == arm
            assert_same(Moments.of(n[of_arm], x[of_arm]), at(grown, look, arm))


def test_sums_with_a_covariate_are_those_of_whole_units() -> None:
    drawn = drawn_of(Population(units=400, requests=4000, zipf=0.6, icc=0.3, covariate=0.7))
    grown = grow(drawn, looks=10, cap=None, centre=0.2)
    n = np.bincount(drawn.unit, minlength=400)
    x = np.bincount(drawn.unit, drawn.value, minlength=400)
    of_arm = drawn.arm == 1
    whole = Moments.of(n[of_arm], x[of_arm])

    expected = CovariateMoments.of(n[of_arm], x[of_arm], drawn.covariate[of_arm], ratio=whole.ratio)

    assert grown.covariates is not None
    for name in CovariateMoments.__slots__:
        assert getattr(grown.covariates, name)[-1, 1] == pytest.approx(getattr(expected, name), abs=1e-8), name


def test_a_proportion_has_its_mean_and_its_correlation() -> None:
    drawn = drawn_of(Population(units=20_000, requests=100_000, icc=0.3, arrival=Arrival.PRESENT))
    pair = (drawn.ordinal[1:] == 1) & (drawn.ordinal[:-1] == 0)
    first, second = drawn.value[:-1][pair], drawn.value[1:][pair]

    assert drawn.value.mean() == pytest.approx(0.2, abs=0.01)
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0.3, abs=0.03)


def test_heavy_users_come_late() -> None:
    drawn = drawn_of(POPULATIONS["heavy late"])
    heavy = drawn.unit < 0.05 * 400

    assert drawn.time[heavy].min() == 0.5
    assert drawn.time[~heavy].min() < 0.01


def test_the_treatment_lifts_the_mean() -> None:
    drawn = drawn_of(Population(units=40_000, single=True, lift=-0.5))
    treated = drawn.arm[drawn.unit] == 1

    assert drawn.value[treated].mean() / drawn.value[~treated].mean() == pytest.approx(0.5, abs=0.05)


def test_a_ramp_moves_units_to_the_treatment_alone() -> None:
    first, second = ramped(Ramp(), Population(units=2000, arrival=Arrival.PRESENT), np.random.default_rng(1))

    assert first.arm.mean() == pytest.approx(0.1, abs=0.03)
    assert second.arm.mean() == pytest.approx(0.5, abs=0.05)
    assert (second.arm >= first.arm).all()
    assert first.time.max() < 0.3 <= second.time.min()


def test_pooled_steps_have_every_request_once() -> None:
    first, second = ramped(Ramp(), Population(units=500, arrival=Arrival.PRESENT), np.random.default_rng(1))

    both = pooled(first, second)

    assert both.unit.size == first.unit.size + second.unit.size
    assert both.value.sum() == first.value.sum() + second.value.sum()
    assert (np.diff(both.unit) >= 0).all()


def test_gaps_are_out_of_traffic_only_while_they_last() -> None:
    gaps = Gaps(starts=np.array([0.2, 0.6]), length=0.1, growth=2.0)

    assert gaps.at(np.array([0.1, 0.25, 0.35, 0.65, 0.75])).tolist() == [False, True, False, True, False]


def at(grown: Growth, look: int, arm: int) -> Moments:
    return Moments(**{name: getattr(grown.moments, name)[look, arm] for name in Moments.__slots__})


def assert_same(expected: Moments, found: Moments) -> None:
    for name in Moments.__slots__:
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-7, abs=1e-7), name
