"""Whether arms have their planned shares: exact, sequential, any number of arms."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from fairlead.experiment import sample_ratio
from fairlead.experiment.sums import Array


def test_it_is_the_closed_form() -> None:
    counts, shares = [60, 30, 10], [0.5, 0.3, 0.2]

    def one(k: float) -> float:
        inside = zip(counts, shares, strict=True)
        each = [math.lgamma(k * p + n) - math.lgamma(k * p) - n * math.log(p) for n, p in inside]
        return math.lgamma(k) - math.lgamma(k + 100) + math.fsum(each)

    expected = math.log((math.exp(one(100)) + math.exp(one(10_000))) / 2)
    assert sample_ratio.log_e(counts, shares) == pytest.approx(expected, rel=1e-9)


def test_its_expectation_is_one_while_the_shares_are_right() -> None:
    shares = (0.6, 0.3, 0.1)
    units = 7
    total = 0.0
    for counts in product(range(units + 1), repeat=3):
        if sum(counts) == units:
            ways = math.factorial(units) / math.prod(math.factorial(n) for n in counts)
            chance = ways * math.prod(p**n for p, n in zip(shares, counts, strict=True))
            total += chance * math.exp(sample_ratio.log_e(counts, shares))
    assert total == pytest.approx(1.0)


def paths(true: float, units: int, every: int, runs: int) -> Array:
    rng = np.random.Generator(np.random.Philox(9))
    treated = rng.binomial(every, true, (runs, units // every)).cumsum(1)
    return np.stack([treated, np.arange(1, units // every + 1) * every - treated], -1).astype(np.float64)


def test_right_shares_raise_no_alarm_over_the_whole_path() -> None:
    alarms = sample_ratio.log_e(paths(0.1, 100_000, 500, 1000), [0.1, 0.9]) >= sample_ratio.alarm()
    assert alarms.any(1).mean() <= 0.01


def test_the_law_of_a_known_peer_is_found_within_1000_units() -> None:
    """94.5/5.5 where 90/10 was asked for."""
    alarms = sample_ratio.log_e(paths(0.055, 1000, 100, 1000), [0.1, 0.9]) >= sample_ratio.alarm()
    assert alarms.any(1).mean() >= 0.9


def test_a_small_loss_is_found_in_time() -> None:
    """51/49 within 60,000 units in nine runs of ten."""
    alarms = sample_ratio.log_e(paths(0.51, 60_000, 500, 400), [0.5, 0.5]) >= sample_ratio.alarm()
    assert alarms.any(1).mean() >= 0.88


def test_the_order_of_arms_does_not_matter() -> None:
    assert sample_ratio.log_e([5, 70, 25], [0.1, 0.6, 0.3]) == pytest.approx(
        float(sample_ratio.log_e([25, 5, 70], [0.3, 0.1, 0.6]))
    )


def test_steps_multiply() -> None:
    first, second = ([950, 50], [0.9, 0.1]), ([600, 400], [0.5, 0.5])
    by_concentration = sum(sample_ratio.log_e_by_concentration(*step) for step in (first, second))
    expected = np.log(np.exp(by_concentration).mean())
    assert sample_ratio.log_e_of_steps([first, second]) == pytest.approx(expected)
    assert sample_ratio.log_e_of_steps([]) == 0.0
    assert sample_ratio.log_e_of_steps([first]) == pytest.approx(float(sample_ratio.log_e(*first)))


def test_no_units_are_no_evidence() -> None:
    assert sample_ratio.log_e([0, 0], [0.5, 0.5]) == pytest.approx(0.0)


def test_a_unit_where_none_can_be_is_an_alarm() -> None:
    assert sample_ratio.log_e([1000, 0], [1.0, 0.0]) == pytest.approx(0.0)
    assert sample_ratio.log_e([1000, 1], [1.0, 0.0]) >= sample_ratio.alarm()
