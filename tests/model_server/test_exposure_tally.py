"""Sums per unit and minute, first exposures once, and bounds that count what they cost."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.experiment.tail import edge_of
from fairlead.feedback.messages import MOST_EXPOSURES, Arm, ExposureReport, Failure
from fairlead_server.exposure.report import MOST_ENTRIES, reports_of
from fairlead_server.exposure.tally import Tally, latency_edge

ARMS = [Arm(salt="flights/delay/1", phase=n, variant="boosted", revision="boosted-1") for n in range(2)]
MINUTE_US = 60_000_000


def tally_of(*, most_sums: int = 1000, most_known_units: int = 1000) -> Tally:
    return Tally(most_sums=most_sums, most_known_units=most_known_units)


def add(tally: Tally, unit: int, *, arm: Arm = ARMS[0], at_us: int = 0, failed: bool = False) -> None:
    tally.add(
        arm,
        arm.model_dump_json().encode(),
        unit.to_bytes(16),
        at_us=at_us,
        latency_us=5,
        failure=Failure.MODEL if failed else None,
        degraded=not failed,
        covariate=lambda: float(at_us),
    )


async def told(tally: Tally) -> list[ExposureReport]:
    reports = await reports_of(tally.take(), "server-1", 7)
    assert [report.sequence for report in reports] == list(range(7, 7 + len(reports)))
    return [ExposureReport.model_validate_json(gzip.decompress(report.body)) for report in reports]


async def test_requests_of_a_unit_and_of_a_minute_are_added_up() -> None:
    tally = tally_of()
    add(tally, 1, at_us=10)
    add(tally, 1, at_us=MINUTE_US, failed=True)
    add(tally, 2, at_us=MINUTE_US + 1)

    (report,) = await told(tally)

    assert {int(one.unit, 16): one.failures for one in report.counts} == {1: {Failure.MODEL: 1}, 2: {}}
    counts = {int(one.unit, 16): (one.requests, one.errors, one.degraded, one.latency_us) for one in report.counts}
    assert counts == {1: (2, 1, 1, 10), 2: (1, 0, 1, 5)}
    assert {one.minute: (one.requests, one.errors, one.latency_us) for one in report.blocks} == {
        0: (1, 0, 5),
        1: (2, 1, 10),
    }
    edge = int(edge_of(0.005))
    assert [one.latency_counts for one in report.blocks] == [{edge: 1}, {edge: 2}]
    assert {int(one.unit, 16): (one.at_us, one.covariate) for one in report.exposures} == {
        1: (10, 10.0),
        2: (MINUTE_US + 1, MINUTE_US + 1.0),
    }


async def test_only_units_that_failed_say_by_whom_so_that_an_older_ledger_takes_all_others() -> None:
    tally = tally_of()
    add(tally, 1)
    add(tally, 2, failed=True)

    (report,) = await reports_of(tally.take(), "server-1", 0)

    counts = json.loads(gzip.decompress(report.body))["counts"]
    assert ["failures" in one for one in counts] == [False, True]


async def test_a_unit_is_exposed_once_per_phase_whatever_is_taken_away_meanwhile() -> None:
    tally = tally_of()
    for arm in (*ARMS, *ARMS):
        add(tally, 1, arm=arm)
        assert len((await told(tally))[0].counts) == 1

    add(tally, 1)
    (report,) = await told(tally)
    assert report.exposures == ()
    assert tally.firsts_total == 2


async def test_a_unit_that_was_forgotten_is_exposed_again() -> None:
    tally = tally_of(most_known_units=2)
    for unit in (1, 2, 1, 3, 1, 2):  # 2 is the one seen longest ago when 3 comes
        add(tally, unit)
    (report,) = await told(tally)
    assert sorted(int(one.unit, 16) for one in report.exposures) == [1, 2, 3]
    assert tally.firsts_total == 4
    assert tally.forgotten_total == 2


async def test_what_finds_no_room_is_counted_once_and_told_with_the_next_report() -> None:
    tally = tally_of(most_sums=4)  # an arm, a minute, two units
    for unit in (1, 2, 3, 3, 1):
        add(tally, unit)
    tally.add_mismatch(ARMS[0], ARMS[0].model_dump_json().encode())
    tally.add_mismatch(ARMS[1], ARMS[1].model_dump_json().encode())

    (report,) = await told(tally)
    assert sum(one.requests for one in report.counts) == 3
    assert [one.requests for one in report.mismatches] == [1]
    assert report.dropped == tally.dropped_total == 3
    add(tally, 3)
    (after,) = await told(tally)
    assert after.dropped == 0
    assert [one.at_us for one in after.exposures] == [0], "what was dropped was not exposed either"


@given(st.one_of(st.integers(-10, 100_000), st.integers(0, 2**62)))
@pytest.mark.parametrize("scale", [1, 1000])
def test_a_latency_falls_where_the_analysis_looks_for_it(scale: int, latency: int) -> None:
    """Both round the same logarithm; where it is a whole number but for its last bit, neighbours are as good."""
    found, wanted = latency_edge(latency * scale), int(edge_of(latency * scale / 1000))
    assert abs(found - wanted) <= int(latency_edge(latency * scale + 1) != latency_edge(latency * scale - 1))


async def test_nothing_is_no_report() -> None:
    assert await told(tally_of()) == []


async def test_many_entries_are_several_reports() -> None:
    assert MOST_ENTRIES <= MOST_EXPOSURES
    units = 2 * MOST_ENTRIES + 1
    tally = tally_of(most_sums=units + 2, most_known_units=units)
    for unit in range(units + 1):
        add(tally, unit)
    reports = await told(tally)
    assert [len(report.counts) for report in reports] == [MOST_ENTRIES, MOST_ENTRIES, 1]
    assert [report.dropped for report in reports] == [1, 0, 0]
    assert len({one.unit for report in reports for one in report.exposures}) == units


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3 * MINUTE_US), st.booleans(), st.booleans()), max_size=60),
    st.integers(1, 12),
)
async def test_told_and_dropped_are_all_there_is(asked: list[tuple[int, int, bool, bool]], most_sums: int) -> None:
    tally = tally_of(most_sums=most_sums, most_known_units=4)
    reports: list[ExposureReport] = []
    for unit, at_us, failed, is_taken in asked:
        add(tally, unit, at_us=at_us, failed=failed)
        if is_taken:
            reports += await told(tally)
    reports += await told(tally)

    counts = list(chain.from_iterable(report.counts for report in reports))
    blocks = list(chain.from_iterable(report.blocks for report in reports))
    requests = sum(one.requests for one in counts)
    assert requests + sum(report.dropped for report in reports) == len(asked)
    assert sum(one.requests for one in blocks) == requests
    assert sum(one.errors for one in blocks) == sum(one.errors for one in counts)
    exposed = Counter(one.unit for report in reports for one in report.exposures)
    assert set(exposed) == {one.unit for one in counts}
