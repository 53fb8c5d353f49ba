"""Flights become requests, laid over real time before the first is sent."""

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.clock import to_us
from flights.traffic import NEVER_US, UNKNOWN_TAIL, Pace, asks_of


def flights(**columns: object) -> pd.DataFrame:
    rows = {
        "flight_id": [1, 0],
        "asked_at": pd.to_datetime(["2013-11-01T10:10Z", "2013-11-01T10:00Z"], utc=True),
        "landed_at": pd.to_datetime(["2013-11-01T12:00Z", "NaT"], utc=True),
        "late": [1.0, np.nan],
        "tailnum": ["N14228", None],
        "origin": ["EWR", "JFK"],
        "dest": ["IAH", "BQN"],
        "carrier": ["UA", "B6"],
        "hour": [5, 6],
        "weekday": [4, 4],
        "distance": [1400.0, 1576.0],
    }
    return pd.DataFrame(rows | columns)


def test_requests_are_in_the_order_they_are_asked() -> None:
    asks = asks_of(flights())
    assert asks.flight_id.tolist() == [0, 1]
    assert asks.asked_us.tolist() == [to_us(t) for t in pd.to_datetime(["2013-11-01T10:00Z", "2013-11-01T10:10Z"])]


def test_a_flight_that_never_lands_has_no_label_time() -> None:
    asks = asks_of(flights())
    assert asks.landed_us.tolist() == [NEVER_US, to_us(pd.Timestamp("2013-11-01T12:00Z"))]


def test_a_plane_without_tail_number_is_no_unit_and_an_unknown_key() -> None:
    asks = asks_of(flights())
    assert asks.units == (None, "N14228")
    assert [orjson.loads(b)["instances"][0]["tailnum"] for b in asks.bodies] == [UNKNOWN_TAIL, "N14228"]


def test_a_request_brings_keys_and_what_only_the_request_knows() -> None:
    body = orjson.loads(asks_of(flights()).bodies[1])
    assert body == {
        "instances": [
            {
                "tailnum": "N14228",
                "origin": "EWR",
                "dest": "IAH",
                "carrier": "UA",
                "hour": 5,
                "weekday": 4,
                "distance": 1400.0,
            }
        ],
        "parameters": {"report_states": True},
    }


@given(times=st.lists(st.integers(0, 50), min_size=1, max_size=60), rate=st.floats(1, 1000), gap=st.floats(0, 1))
def test_ticks_cover_all_requests_once_in_order_at_the_stated_rate(times: list[int], rate: float, gap: float) -> None:
    asked = np.array(sorted(times), dtype=np.int64)
    pace = Pace(rate_per_s=rate, gap_s=gap)
    ticks = list(pace.ticks(asked))
    assert [i for t in ticks for i in range(t.first, t.last)] == list(range(len(asked)))
    assert [t.time_us for t in ticks] == sorted(set(times))
    due = [pace.due_s(t, i) for t in ticks for i in range(t.first, t.last)]
    assert due == sorted(due)
    assert due[-1] == pytest.approx(len(ticks) * gap + (len(asked) - 1) / rate)
    assert pace.mean_per_s(asked) == pytest.approx(len(asked) / (due[-1] + 1 / rate))
