"""When a deployment is to be looked at again though nothing has changed. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from fairlead_operator.core.desired import Desired
from fairlead_operator.core.observed import Observed
from fairlead_operator.core.record import Record, Run, State

SOONEST_S = 0.2


def next_look_s(desired: Desired, observed: Observed, record: Record, now_s: float) -> float | None:
    """Return the seconds until something falls due; None if nothing will by time alone.

    Args:
        desired: What is asked for.
        observed: What is.
        record: What is remembered.
        now_s: Unix time, seconds.
    """
    due = [at_s - now_s for at_s in _due(desired, observed, record) if at_s > now_s - SOONEST_S]
    return max(min(due), SOONEST_S) if due else None


def _due(desired: Desired, observed: Observed, record: Record) -> Iterator[float]:
    """Yield when things fall due, Unix times; what was due already yields nothing more."""
    yield from (kept.until_s for kept in record.kept)
    deadline_s = desired.strategy.progress_deadline_s
    for revision in desired.revisions.values():
        server = observed.server(revision.name)
        if server is not None and server.created_s is not None and not server.answers:
            yield server.created_s + deadline_s
    if record.run is not None and not desired.paused:
        yield from _of_run(desired, record.run)


def _of_run(desired: Desired, run: Run) -> Iterator[float]:
    if run.state is State.DEPLOYING:
        yield run.since_s + desired.strategy.progress_deadline_s
    hold_s = desired.strategy.steps[run.step].hold_s if run.step < len(desired.strategy.steps) else None
    if run.state is State.RAMPING and run.in_force and run.gaps.since_s is None and hold_s is not None:
        yield run.since_s + run.gaps.total_s + hold_s
