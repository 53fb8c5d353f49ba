"""What analyses said over time, and whether servers have stopped telling."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead.experiment.report import Point
from fairlead_ledger.analysis import looks
from fairlead_ledger.analysis.looks import APART_US, MOST_LOOKS, Look, MetricLook
from fairlead_ledger.analysis.silence import is_silent
from fairlead_ledger.store import versions
from fairlead_ledger.store.database import Database
from support.ledgers import HOUR_US, MINUTE_US
from support.reports import flights_report


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'ledger.db'}")
    versions.upgrade(opened)
    yield opened
    opened.close()


def look(at_us: int, heard_us: int | None = None) -> Look:
    point = Point(at_us=at_us, effect=-0.05, low=-0.1, high=None)
    return Look(at_us=at_us, heard_us=heard_us, metrics=(MetricLook(metric="brier", treatment="boosted", point=point),))


def kept(database: Database, *told: Look, phase: int = 1) -> list[Look]:
    with database.writing() as connection:
        for one in told:
            looks.keep(database, connection, 1, phase, one)
    with database.reading() as connection:
        return looks.read(connection, 1, phase)


def test_looks_are_read_as_they_were_kept_in_order_of_time(database: Database) -> None:
    told = [look(3 * APART_US), look(APART_US), look(2 * APART_US)]
    assert kept(database, *told) == sorted(told, key=lambda one: one.at_us)
    assert kept(database, phase=0) == []
    kept(database, look(4 * APART_US), phase=0)
    with database.reading() as connection:
        assert [one.at_us // APART_US for one in looks.read_all(connection, 1)] == [1, 2, 3, 4]


def test_a_look_of_the_same_moment_stays_as_it_is(database: Database) -> None:
    assert kept(database, look(APART_US, 5), look(APART_US, 7)) == [look(APART_US, 5)]


def test_one_look_a_minute_is_due() -> None:
    assert looks.is_due([], 0)
    assert not looks.is_due([look(APART_US)], 2 * APART_US - 1)
    assert looks.is_due([look(APART_US)], 2 * APART_US)


def test_a_long_experiment_keeps_a_coarser_course_with_both_its_ends(database: Database) -> None:
    told = [look(number * APART_US) for number in range(MOST_LOOKS + 100)]
    found = kept(database, *told)
    assert MOST_LOOKS // 2 <= len(found) <= MOST_LOOKS
    assert (found[0], found[-1]) == (told[0], told[-1])


def test_a_look_has_what_is_held_against_a_limit_and_no_more() -> None:
    told = Look.of(flights_report(), 5)
    assert [one.metric for one in told.metrics] == ["brier", "latency_ms", "error"]
    assert looks.by_metric(1, [told])[1, "brier", "boosted"][0].effect == pytest.approx(-0.061)


HEARD = [look(minute * MINUTE_US, minute * MINUTE_US - MINUTE_US) for minute in range(1, 60)]
NIGHT = [look(hour * HOUR_US, HOUR_US if hour < 7 else hour * HOUR_US) for hour in range(1, 9)]


@pytest.mark.parametrize(
    ("seen", "silent_us", "expected"),
    [
        ([], 14 * MINUTE_US, False),
        ([], 16 * MINUTE_US, True),
        (HEARD, 14 * MINUTE_US, False),
        (HEARD, 16 * MINUTE_US, True),
        (NIGHT, 16 * HOUR_US, False),
        (NIGHT, 19 * HOUR_US, True),
    ],
    ids=["new", "new, long", "steady", "steady, long", "after a night", "after a night, long"],
)
def test_what_is_too_long_a_silence_is_learnt_from_the_experiment(
    seen: list[Look], silent_us: int, *, expected: bool
) -> None:
    heard_us = seen[-1].heard_us if seen and seen[-1].heard_us else HOUR_US
    assert is_silent(seen, heard_us, heard_us + silent_us) is expected


def test_who_never_told_anything_is_not_silent() -> None:
    assert not is_silent([], None, HOUR_US)
