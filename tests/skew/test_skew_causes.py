"""Why one value differs: a table."""

from __future__ import annotations

import pytest

from fairlead.policy import FeatureState
from fairlead.skew.cause import Cause, Found, Served, SourceRow, cause_of

AT = 100
OLD, SAME, NEW = SourceRow(10, 11), SourceRow(50, 51), SourceRow(90, 91)
LATE, CORRECTED, UNDATED = SourceRow(90, 101), SourceRow(50, 101), SourceRow(90, None)
NOTHING = Found(None, None)


def both(row: SourceRow) -> Found:
    return Found(row, row)


@pytest.mark.parametrize(
    ("state", "event_us", "found", "cause"),
    [
        ("STORE_ERROR", None, both(NEW), Cause.STORE_ERROR),
        ("PRESENT", 50, both(LATE), Cause.LATE_DATA),
        ("PRESENT", 50, both(CORRECTED), Cause.LATE_DATA),
        ("NOT_FOUND", None, both(LATE), Cause.LATE_DATA),
        ("STALE", 50, both(LATE), Cause.LATE_DATA),
        ("NOT_FOUND", None, both(NEW), Cause.NEVER_WRITTEN),
        ("NEVER_WRITTEN", 50, both(SAME), Cause.NEVER_WRITTEN),
        ("PRESENT", 50, both(NEW), Cause.PUSH_LAG),
        ("PRESENT", 50, both(UNDATED), Cause.PUSH_LAG),
        ("STALE", 50, both(NEW), Cause.PUSH_LAG),
        ("STALE", 50, both(SAME), Cause.TTL),
        ("STALE", 50, Found(None, SAME), Cause.TTL),
        ("PRESENT", 10, Found(None, SAME), Cause.TTL),
        ("PRESENT", 50, both(OLD), Cause.NOT_OFFLINE),
        ("PRESENT", 50, Found(None, OLD), Cause.NOT_OFFLINE),
        ("PRESENT", 50, NOTHING, Cause.NOT_OFFLINE),
        ("PRESENT", 50, both(SAME), Cause.VALUES_DIFFER),
        ("NULL", 50, both(SAME), Cause.VALUES_DIFFER),
    ],
)
def test_the_cause_is_named_by_what_was_known(state: str, event_us: int | None, found: Found, cause: Cause) -> None:
    assert cause_of(Served(FeatureState(state), AT, event_us), found) is cause
