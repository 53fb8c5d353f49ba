"""The boundaries: closed forms, and that bounds and e-values say the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.experiment import bounds

ALPHAS = st.floats(1e-4, 0.4)
CLOCKS = st.floats(1e-3, 1e6)


@pytest.mark.parametrize(
    ("alpha", "floor"), [(0.05, 3.035), (0.025, 3.279), (0.01, 3.572), (0.005, 3.775), (0.0025, 3.967)]
)
def test_the_boundary_has_its_known_floor(alpha: float, floor: float) -> None:
    u = np.geomspace(0.01, 1e4, 20_001)
    assert bounds.two_sided(u, alpha=alpha).min() == pytest.approx(floor, abs=5e-4)


def test_the_narrowest_interval_for_its_information_is_where_it_is_known_to_be() -> None:
    u = bounds.best_clock(0.05)
    assert u == pytest.approx(8.212, abs=1e-3)
    around = np.array([u * 0.9, u, u * 1.1])
    assert bounds.two_sided(around, alpha=0.05).argmin() == 1


@given(u=CLOCKS, alpha=ALPHAS)
def test_an_effect_on_the_bound_has_an_e_value_of_one_over_alpha(u: float, alpha: float) -> None:
    z = float(bounds.two_sided(u, alpha=alpha))
    assert bounds.log_e_two_sided(z, u) == pytest.approx(-math.log(alpha), rel=1e-9)


@given(u=CLOCKS, alpha=st.floats(1e-4, 0.1))
def test_the_one_sided_bound_is_exact_and_never_wider_than_the_closed_form(u: float, alpha: float) -> None:
    z = float(bounds.one_sided(u, alpha=alpha))
    closed = math.sqrt((1 + 1 / u) * 2 * math.log(1 + math.sqrt(1 + u) / (2 * alpha)))
    assert z <= closed * (1 + 1e-12)
    assert z == pytest.approx(closed, rel=0.25)
    assert float(bounds.log_e_one_sided(z, u)) == pytest.approx(-math.log(alpha), rel=1e-6)


@given(u=CLOCKS, alpha=st.floats(1e-4, 0.2))
def test_one_side_alone_is_narrower_than_both(u: float, alpha: float) -> None:
    assert bounds.one_sided(u, alpha=alpha) < bounds.two_sided(u, alpha=alpha)


def test_no_information_bounds_nothing() -> None:
    assert bounds.two_sided(bounds.clock(np.inf, effect=0.1), alpha=0.05) > 1e100
    assert bounds.one_sided(0.0, alpha=0.05) > 1e100


def test_bounds_keep_an_arrays_shape() -> None:
    u = np.geomspace(0.1, 100, 12).reshape(3, 4)
    for bound in (bounds.two_sided, bounds.one_sided):
        assert bound(u, alpha=0.05).shape == (3, 4)
        assert bound(u, alpha=0.05)[1, 2] == pytest.approx(float(bound(float(u[1, 2]), alpha=0.05)))


def test_on_brownian_motion_the_level_holds_over_six_decades() -> None:
    """The known figures are 4.5 % and 4.6 % with 3,000 looks."""
    rng = np.random.Generator(np.random.Philox(11))
    information = np.geomspace(1e-2, 1e4, 300)
    steps = np.sqrt(np.diff(information, prepend=0.0)) * rng.normal(size=(2000, 300))
    z = steps.cumsum(1) / np.sqrt(information)
    u = bounds.clock(1 / information, effect=1.0)
    both = (np.abs(z) >= bounds.two_sided(u, alpha=0.05)).any(1).mean()
    one = (z >= bounds.one_sided(u, alpha=0.05)).any(1).mean()
    assert 0.02 < both < 0.05
    assert 0.02 < one < 0.05


def test_a_p_value_is_the_e_values_inverse_and_never_above_one() -> None:
    assert bounds.p_value(math.log(20)) == pytest.approx(0.05)
    assert bounds.p_value(-3.0) == 1.0
