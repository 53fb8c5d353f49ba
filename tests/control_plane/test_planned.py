"""What ``fairlead up`` says of what an experiment takes."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.experiment.report import Plan
from fairlead_operator.platforms.local.planned import planned_of
from support.reports import flights_report

DAY_S = 86_400.0


def plan(**changed: Any) -> Plan:
    usual = {"planned_units": 2960, "seen_units": 311, "elapsed_s": 4 * DAY_S, "planned_s": 13.1 * DAY_S}
    return Plan(**{**usual, "maximum_s": 30 * DAY_S, **changed})


def test_nothing_is_said_before_anything_is_known() -> None:
    assert planned_of(flights_report(plan=plan(planned_units=None, planned_s=None))) is None
    assert planned_of(flights_report(phase=0, plan=plan())) is None
    assert planned_of(flights_report(plan=plan(elapsed_s=DAY_S))) is None


@pytest.mark.parametrize(
    ("changed", "says", "warns"),
    [
        ({}, "needs about 2,960 units, 311 were seen: 13 days in all", False),
        ({"planned_s": None}, "needs about 2,960 units, 311 were seen", False),
        ({"maximum_s": None}, "13 days in all", False),
        ({"maximum_s": 9.5 * DAY_S}, "WARNING: maximumDuration is 9.5 days, so it will probably end undecided", True),
    ],
)
def test_units_and_days_are_said_with_a_warning_where_time_is_too_short(
    changed: dict[str, Any], says: str, *, warns: bool
) -> None:
    planned = planned_of(flights_report(plan=plan(**changed)))
    assert planned is not None
    assert says in planned.sentence
    assert ("WARNING" in planned.sentence) is warns


def test_figures_that_move_are_no_other_topic() -> None:
    first = planned_of(flights_report(plan=plan()))
    later = planned_of(flights_report(plan=plan(planned_units=3100, planned_s=14 * DAY_S)))
    tight = planned_of(flights_report(plan=plan(maximum_s=DAY_S)))
    assert first is not None
    assert later is not None
    assert tight is not None
    assert first.topic == later.topic != tight.topic
