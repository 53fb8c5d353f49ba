"""The replay months, repeated for ever: every moment has its place in 2013, and every row comes again on time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from hypothesis import given
from hypothesis import strategies as st

from fairlead.clock import from_us
from flights.cluster.expected import repeated
from flights.cluster.online import rows_between
from flights.cluster.shift import PERIOD_US, START_US, in_2013, shift_us, stretches
from flights.publish import PublishedView
from flights.sources import EVENT_TIME

WEEK_US = timedelta(weeks=1) // timedelta(microseconds=1)
DAY_US = WEEK_US // 7
LATEST_US = START_US + 6 * PERIOD_US
MOMENTS = st.integers(START_US - 10 * DAY_US, LATEST_US)
SOURCES = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(-9, 56).map(lambda day: START_US + day * DAY_US) | st.just(START_US + PERIOD_US)
    ),
    max_size=12,
    unique=True,
)
"""Rows of a source: key and time, on the seams more often than not."""


@given(st.integers(START_US + 1, START_US + 10_000 * PERIOD_US))
def test_any_time_has_its_like_in_the_replay_months_on_the_same_weekday_and_hour(time_us: int) -> None:
    assert START_US < in_2013(time_us) <= START_US + PERIOD_US
    assert shift_us(time_us) % WEEK_US == 0
    here, there = from_us(time_us), from_us(in_2013(time_us))
    assert (here.weekday(), here.timetz()) == (there.weekday(), there.timetz())


def test_until_the_replay_months_are_over_it_is_2013() -> None:
    assert {shift_us(time) for time in (START_US - 1, START_US, START_US + 1, START_US + PERIOD_US)} == {0}
    assert shift_us(START_US + PERIOD_US + 1) == PERIOD_US


def every_row(rows: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return (time, key, row of the source) of everything that ever happens."""
    once = [(time, key, index) for index, (key, time) in enumerate(rows) if time <= START_US]
    again = [
        (time + cycle * PERIOD_US, key, index)
        for index, (key, time) in enumerate(rows)
        if START_US < time <= START_US + PERIOD_US
        for cycle in range(8)
    ]
    return sorted(once + again)


def last_of_keys(rows: list[tuple[int, int]], after_us: int | None, until_us: int) -> dict[str, tuple[int, float]]:
    happened = [row for row in every_row(rows) if row[0] <= until_us and (after_us is None or row[0] > after_us)]
    return {str(key): (time, float(index)) for time, key, index in happened}


def view_of(rows: list[tuple[int, int]]) -> PublishedView:
    """Make a view's source whose feature is the number of the row."""
    order = sorted(range(len(rows)), key=lambda index: rows[index][1])
    nothing: Any = None
    return PublishedView(
        view=nothing,
        times_us=np.array([rows[index][1] for index in order], dtype=np.int64),
        keys=np.array([rows[index][0] for index in order], dtype=np.int64),
        entity_keys=[EntityKey(join_keys=["key"], entity_values=[Value(string_val=str(key))]) for key in range(3)],
        features={"row": np.array(order, dtype=np.float32)},
    )


@given(SOURCES, st.none() | MOMENTS, MOMENTS)
def test_what_is_published_is_each_keys_last_row_of_that_time(
    rows: list[tuple[int, int]], after_us: int | None, until_us: int
) -> None:
    if after_us is not None and after_us > until_us:
        after_us, until_us = until_us, after_us
    published = {
        key.entity_values[0].string_val: (round(at.timestamp() * 1e6), values["row"].float_val)
        for key, values, at, _ in rows_between(view_of(rows), after_us, until_us)
    }
    assert published == last_of_keys(rows, after_us, until_us)


@given(SOURCES, MOMENTS)
def test_the_sources_written_once_more_end_in_the_same_state(rows: list[tuple[int, int]], until_us: int) -> None:
    times = pd.to_datetime([time for _, time in rows], unit="us", utc=True).as_unit("us")
    source = pd.DataFrame({"key": [str(key) for key, _ in rows], EVENT_TIME: times, "row": range(len(rows))})
    found = repeated(source, until_us)
    at_us = found[EVENT_TIME].to_numpy("datetime64[us]").astype(np.int64)
    ordered = found.assign(at=at_us).sort_values("at", kind="stable")
    last = {
        key: (int(at), float(row)) for key, at, row in zip(ordered["key"], ordered["at"], ordered["row"], strict=True)
    }
    assert last == last_of_keys(rows, None, until_us)


def test_a_long_pause_is_made_up_for_by_the_last_repetition_alone() -> None:
    after_us, until_us = START_US + DAY_US, START_US + 5 * PERIOD_US + DAY_US
    assert [stretch.shift_us // PERIOD_US for stretch in stretches(after_us, until_us)] == [4, 5]
