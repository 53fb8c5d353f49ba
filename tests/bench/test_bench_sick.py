"""A scenario of a sick store is judged by every request: in time, right, marked, and well again soon."""

from __future__ import annotations

from typing import Any

import pytest
from bench.sick.load import Answer
from bench.sick.verdict import Request, Verdict, judge

DEADLINE_S = 0.02


def seen(**changed: Any) -> Verdict:
    """Judge a second of requests, degraded in its middle; ``changed`` are requests by number."""
    requests: list[Request] = [
        (i / 1000, 0.001, Answer.DEGRADED if 300 <= i < 700 else Answer.GOOD) for i in range(1000)
    ]
    for i, request in changed.items():
        requests[int(i[1:])] = request
    return judge("frozen", requests, [0.001] * 1000, deadline_s=DEADLINE_S, cpu_share=0.5, fault=(0.3, 0.6))


def test_all_in_time_and_marked_is_held() -> None:
    verdict = seen()
    assert verdict.met
    assert verdict.degraded == 400
    assert verdict.degraded_share_in_fault == 1
    assert verdict.well_after_s == pytest.approx(0.099)
    assert verdict.worst_over_ms == pytest.approx(-19)


@pytest.mark.parametrize(
    ("request_", "missed"),
    [
        ((0.9, -1.0, Answer.NONE), "unanswered"),
        ((0.9, 0.001, Answer.WRONG), "wrong"),
        ((0.9, 0.001, Answer.UNMARKED), "unmarked"),
        ((0.9, 0.001, Answer.ERROR), "errors"),
        ((0.9, DEADLINE_S + 0.026, Answer.GOOD), "answered within deadline + 25 ms"),
    ],
)
def test_one_request_is_enough_not_to_hold(request_: Request, missed: str) -> None:
    assert seen(n900=request_).missed == [missed]


def test_two_of_a_thousand_may_not_be_late() -> None:
    late = (0.9, DEADLINE_S + 0.006, Answer.GOOD)
    assert seen(n900=late).met
    assert seen(n900=late, n901=late).missed == ["answered within deadline + 5 ms"]


def test_it_is_well_once_a_tenth_of_a_second_is() -> None:
    late = (0.9, 0.001, Answer.DEGRADED)
    assert seen(n900=late).well_after_s == pytest.approx(0.099)
    assert seen(n900=late).degraded_later == 1
    requests: list[Request] = [(i / 1000, 0.001, Answer.DEGRADED) for i in range(2000)]
    verdict = judge("frozen", requests, [0.001], deadline_s=DEADLINE_S, cpu_share=0.5, fault=(0.3, 0.6))
    assert verdict.missed == ["well within 1 s"]
