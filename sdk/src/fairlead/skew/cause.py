"""Why a value that was served is not the one that a point-in-time join gives: pure, cell by cell."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fairlead.policy import FeatureState


class Cause(StrEnum):
    """Why one value differs; where several hold, the first of these."""

    STORE_ERROR = "store_error"
    """The online store did not answer, and the model saw a substitute."""
    LATE_DATA = "late_data"
    """The row that the join takes was created after the value was served: nobody could have known it."""
    NEVER_WRITTEN = "never_written"
    """The online store had no row of the entity, or a row without this feature."""
    PUSH_LAG = "push_lag"
    """The online store had an older row: the newer one was there, but not yet pushed or materialized."""
    TTL = "ttl"
    """The same row, which one side counts as too old."""
    NOT_OFFLINE = "not_offline"
    """The offline store lacks the row that was served (pushed online alone, rewritten), or dates it later."""
    VALUES_DIFFER = "values_differ"
    """The same row with other values, or another transformation."""


@dataclass(frozen=True, slots=True)
class Served:
    """What was known of one cell when it was served."""

    state: FeatureState
    at_us: int
    """When, microseconds since 1970."""
    event_us: int | None
    """Event time of the online store's row; None without one."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row of the offline store."""

    event_us: int
    """Event time, microseconds since 1970."""
    created_us: int | None
    """When it was created; None if the source has no such column."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the offline store has for one cell at the time of serving."""

    joined: SourceRow | None
    """The row that a point-in-time join takes; None if there is none within the ttl."""
    newest: SourceRow | None
    """The newest row up to then, however old."""


def cause_of(served: Served, found: Found) -> Cause:
    """Return why a value that was served differs from the joined one.

    Args:
        served: What is known of the value.
        found: What the offline store has now.
    """
    row, event_us = found.joined, served.event_us
    if served.state is FeatureState.STORE_ERROR:
        return Cause.STORE_ERROR
    if row is None or (event_us is not None and row.event_us < event_us):
        return _of_other_row(found.newest, event_us)
    if row.created_us is not None and row.created_us > served.at_us:
        return Cause.LATE_DATA
    if event_us is None or served.state is FeatureState.NEVER_WRITTEN:
        return Cause.NEVER_WRITTEN
    if row.event_us > event_us:
        return Cause.PUSH_LAG
    return Cause.TTL if served.state is FeatureState.STALE else Cause.VALUES_DIFFER


def _of_other_row(newest: SourceRow | None, event_us: int | None) -> Cause:
    """Return why the join takes no row, or one that is older than the served one."""
    known = newest is not None and event_us is not None and newest.event_us >= event_us
    return Cause.TTL if known else Cause.NOT_OFFLINE
