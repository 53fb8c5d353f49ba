"""When a deployment is to be looked at again though nothing has changed. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from fairlead_operator.core.desired import Desired
from fairlead_operator.core.goal import current_run, step_of
from fairlead_operator.core.observed import Observed
from fairlead_operator.core.record import Record, Run, State
from fairlead_operator.core.rollout import bearable_s

SOONEST_S = 0.2


def next_look_s(desired: Desired, observed: Observed, record: Record, now_s: float) -> float | None:
    """Return the seconds until something falls due; None if nothing will by time alone.

    Args:
        desired: What is asked for.
        observed: What is.
        record: What is remembered.
        now_s: Unix time, seconds.
    """
    due = [at_s - now_s for at_s in _due(desired, observed, record, now_s) if at_s > now_s - SOONEST_S]
    return max(min(due), SOONEST_S) if due else None


def _due(desired: Desired, observed: Observed, record: Record, now_s: float) -> Iterator[float]:
    """Yield when things fall due, Unix times; what was due already yields nothing more."""
    if desired.paused:
        return
    yield from (kept.until_s for kept in record.kept)
    deadline_s = desired.strategy.progress_deadline_s
    for revision in desired.revisions.values():
        server = observed.server(revision.name)
        if server is not None and server.created_s is not None and not server.answers:
            yield server.created_s + deadline_s
    run = current_run(desired, record)
    if run is not None:
        yield from _of_run(desired, run, now_s)


def _of_run(desired: Desired, run: Run, now_s: float) -> Iterator[float]:
    step = step_of(desired, run)
    if run.state is State.DEPLOYING or (run.state.is_splitting and not run.in_force):
        yield run.since_s + desired.strategy.progress_deadline_s
    elif run.state.is_splitting and run.gaps.is_open:
        yield now_s + bearable_s(run, step, now_s) - run.gaps.until(now_s)
    elif run.state is State.RAMPING and not run.away.is_open and step.hold_s is not None:
        yield run.since_s + run.gaps.total_s + run.away.total_s + step.hold_s
