"""What a soak judges, by outcomes that are made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bench.model import Asked
from bench.ours import Heard
from soak.clients import Tally
from soak.report import failures, growth, svg, table, warm
from soak.run import Outcome, Stretch
from soak.traffic import Question

MIB = 2**20


def stretches(*resident_mib: float) -> list[Stretch]:
    return [
        Stretch(60.0 * (place + 1), 1000, 200, 900, 2000, round(mib * MIB), 30, 0.4)
        for place, mib in enumerate(resident_mib)
    ]


def held(*resident_mib: float) -> Outcome:
    seen = stretches(*(resident_mib or (100, 101, 102)))
    return Outcome(2000, 0.9, seen, {"v2-json": 700, "grpc": 290, "broken": 10}, {}, 20, 12, 12, 0)


def test_a_calm_soak_fails_in_nothing() -> None:
    assert failures(held(), Heard(requests=990), 0) == []


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (held(100, 100, 103, 106), "grew by 6.0%"),
        (replace(held(), problems={"grpc: status 13": 2}), "grpc: status 13 (2 times)"),
        (replace(held(), unanswered=3), "3 requests were never answered"),
        (replace(held(), descriptors_after=40), "12 before, 40 after"),
        (replace(held(), answered={"v1-json": 991}), "991 requests were exposed, the ledger heard of 990"),
        (replace(held(), stretches=[]), "no stretch of time"),
    ],
)
def test_what_does_not_hold_is_told(outcome: Outcome, told: str) -> None:
    (failure,) = failures(outcome, Heard(requests=990), 0)
    assert told in failure


def test_growth_counts_from_after_the_first_tenth_and_twenty_seconds() -> None:
    seen = stretches(50, *[100] * 18, 102)
    assert warm(seen)[0].resident_bytes == 100 * MIB
    assert growth(seen) == pytest.approx(0.02)
    short = [replace(one, end_s=6.0 * (place + 1)) for place, one in enumerate(stretches(50, 60, 70, 100, 101))]
    assert growth(short) == pytest.approx(0.01)


def test_stretches_are_shown_and_drawn() -> None:
    assert table(held()).row_count == 3
    assert svg(held().stretches).count("<polyline") == 3
    assert svg([]).startswith("<svg")


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, b'{"outputs":[{"name":"probabilities","datatype":"FP32","shape":[1,2],"data":[0.25,0.75]}]}', None),
        (200, b'{"outputs":[{"name":"probabilities","datatype":"FP32","shape":[1,2],"data":[0.5,0.5]}]}', "instead of"),
        (200, b"not JSON", "not JSON"),
        (500, b"{}", "status 500"),
    ],
)
def test_every_answer_is_checked(status: int, body: bytes, told: str | None) -> None:
    rows = Asked(np.zeros((1, 10), np.float32), np.array([1]), np.array([[0.25, 0.75]], np.float32))
    tally = Tally()
    for _ in range(2):
        tally.note(Question("v2-json", b"", rows, frozenset({200})), 0.0, status, dict, body)
    assert tally.answered == {"v2-json": 2}
    assert bool(tally.problems) == (told is not None)
    assert told is None or any(told in problem for problem in tally.problems)


def test_a_broken_request_must_be_refused_as_expected() -> None:
    tally = Tally()
    question = Question("broken", b"", None, frozenset({400}))
    tally.note(question, 0.0, 400, dict, b"{}")
    assert not tally.problems
    tally.note(question, 0.0, 200, dict, b"{}")
    assert tally.problems
