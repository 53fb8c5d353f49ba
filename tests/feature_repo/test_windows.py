"""Windows are half open, exact, and blind to other keys."""

from __future__ import annotations

import numpy as np
import pytest

from flights.windows import Events, Ints, grid_end, last_before, rolling_sums


def ints(*values: int) -> Ints:
    return np.array(values, dtype=np.int64)


EVENTS = Events(
    keys=ints(0, 1, 0, 0, 1),
    times_us=ints(10, 10, 20, 20, 35),
    values=np.array([[1.0, -1.0], [5.0, 0.0], [2.0, 2.0], [4.0, 8.0], [7.0, 7.0]]),
)


@pytest.mark.parametrize(
    ("key", "at_us", "width_us", "count", "sums"),
    [
        (0, 9, 100, 0, [0, 0]),
        (0, 10, 100, 1, [1, -1]),
        (0, 19, 100, 1, [1, -1]),
        (0, 20, 100, 3, [7, 9]),
        (0, 20, 10, 2, [6, 10]),
        (0, 20, 11, 3, [7, 9]),
        (0, 29, 10, 2, [6, 10]),
        (0, 30, 10, 0, [0, 0]),
        (1, 20, 100, 1, [5, 0]),
        (1, 35, 25, 1, [7, 7]),
        (2, 35, 100, 0, [0, 0]),
    ],
    ids=[
        "before everything",
        "an event at the end is in",
        "between events",
        "equal times are all in",
        "an event at the start is out",
        "just inside the start",
        "aged",
        "emptied",
        "another key",
        "another key's start",
        "a key without events",
    ],
)
def test_window_holds_what_happened_in_it(key: int, at_us: int, width_us: int, count: int, sums: list[float]) -> None:
    found = rolling_sums(EVENTS, ints(key), ints(at_us), width_us)
    assert found.counts.tolist() == [count]
    assert found.sums.tolist() == [sums]


def test_windows_come_in_the_order_asked_for() -> None:
    found = rolling_sums(EVENTS, ints(1, 0, 1), ints(35, 20, 10), 100)
    assert found.counts.tolist() == [2, 3, 1]
    assert found.means[:, 0].tolist() == [6.0, 7 / 3, 5.0]


def test_the_mean_of_an_empty_window_is_missing() -> None:
    assert np.isnan(rolling_sums(EVENTS, ints(2), ints(35), 100).means).all()


def test_random_windows_equal_a_loop() -> None:
    random = np.random.default_rng(7)
    events = Events(
        random.integers(0, 5, 300), random.integers(0, 500, 300), random.integers(-50, 50, (300, 2)).astype(np.float64)
    )
    keys, at_us = random.integers(0, 6, 200), random.integers(-20, 600, 200)
    found = rolling_sums(events, keys, at_us, 60)
    for i, (key, at) in enumerate(zip(keys, at_us, strict=True)):
        inside = (events.keys == key) & (events.times_us > at - 60) & (events.times_us <= at)
        assert found.counts[i] == inside.sum()
        assert found.sums[i].tolist() == events.values[inside].sum(axis=0).tolist()


@pytest.mark.parametrize(
    ("key", "at_us", "row"),
    [(0, 9, -1), (0, 10, 0), (0, 20, 3), (0, 99, 3), (1, 34, 1), (2, 99, -1), (-1, 99, -1)],
)
def test_last_row_before_a_moment(key: int, at_us: int, row: int) -> None:
    assert last_before(EVENTS.keys, EVENTS.times_us, ints(key), ints(at_us)).tolist() == [row]


def test_nothing_is_last_among_no_rows() -> None:
    assert last_before(ints(), ints(), ints(0, 1), ints(5, 5)).tolist() == [-1, -1]


@pytest.mark.parametrize(("time_us", "end_us"), [(1, 10), (9, 10), (10, 10), (11, 20), (0, 0), (-1, 0)])
def test_a_time_is_stamped_with_the_end_of_its_cell(time_us: int, end_us: int) -> None:
    assert grid_end(ints(time_us), 10).tolist() == [end_us]
