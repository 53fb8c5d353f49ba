"""What somebody may decide about a rollout now, and what follows from it. Pure.

A decision is an annotation on the deployment, ``promote VARIANT RUN`` or ``abort RUN``: the run's id in it makes that
one that comes late, or twice, decides nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairlead_operator.core.desired import Desired
from fairlead_operator.core.goal import current_run, has_runs, winner_of
from fairlead_operator.core.record import Record, Run, State
from fairlead_operator.errors import RequestRefused


@dataclass(frozen=True, slots=True)
class Request:
    """A decision that applies now."""

    text: str
    """The annotation's."""
    outlook: str
    """What will happen."""


def promotion(desired: Desired, record: Record, variant: str | None) -> Request:
    """Return the request to promote ``variant``; the only candidate if None.

    Raises:
        RequestRefused: It cannot be promoted now; the message says why and what can be done.
    """
    run = _run_of(desired, record, "promoted")
    chosen = variant or (desired.arms[0] if len(desired.arms) == 1 else None)
    candidates = ", ".join(desired.arms)
    if chosen is None:
        raise RequestRefused(f"{desired.name}: say which variant is to be promoted: {candidates}")
    if chosen not in desired.arms:
        raise RequestRefused(f"{desired.name}: {chosen} is no candidate of this rollout; candidates: {candidates}")
    if not run.state.is_splitting:
        raise RequestRefused(f"{desired.name}: {_where(desired, record, run)}; a candidate with weight can be promoted")
    return Request(f"promote {chosen} {run.id}", f"{_name(desired, chosen)} takes everything; {_ends(desired)}")


def abortion(desired: Desired, record: Record, now_s: float) -> Request:
    """Return the request to abort the rollout, or to undo a promotion while what it replaced is kept.

    Raises:
        RequestRefused: There is nothing to abort; the message says why and what can be done.
    """
    run = _run_of(desired, record, "aborted")
    text = f"abort {run.id}"
    base = desired.control if desired.strategy.name == "Experiment" else record.stable and record.stable.name
    if run.state not in {State.STABLE, State.ROLLING_BACK}:
        return Request(text, f"{base or desired.control} takes everything back; {_ends(desired)}")
    before = record.kept[0] if record.kept else None
    promoted = run.state is State.STABLE and winner_of(desired, run) is not None
    if promoted and before and before.until_s > now_s and before.revision.variant == desired.control:
        return Request(text, f"the promotion is undone: {before.revision.name} takes everything back")
    where = _where(desired, record, run)
    if promoted:
        where = f"{where}, and what it replaced is not kept any more (rollout.keepPrevious)"
    raise RequestRefused(f"{desired.name}: {where}; change the spec instead")


def _run_of(desired: Desired, record: Record, done: str) -> Run:
    """Return the run that is decided about.

    Raises:
        RequestRefused: There is none.
    """
    if not has_runs(desired):
        field = "spec.rollout.weights" if desired.treatments else "spec.variants"
        message = f"rollout.strategy is Manual, so nothing is {done}; change {field}"
        raise RequestRefused(f"{desired.name}: {message}")
    run = current_run(desired, record)
    if run is None:
        raise RequestRefused(f"{desired.name}: no rollout is under way; it begins with a change of the spec")
    return run


def _where(desired: Desired, record: Record, run: Run) -> str:
    """Return in words where a run is."""
    if not run.is_over or run.decision is None:
        return f"the rollout is {record.state}"
    winner = winner_of(desired, run)
    done = f"{_name(desired, winner)} was promoted" if winner else "the rollout was rolled back"
    return f"{done} already ({run.decision.reason})"


def _name(desired: Desired, variant: str) -> str:
    return desired.revisions[variant].name if desired.strategy.name == "Canary" else variant


def _ends(desired: Desired) -> str:
    return f"this decides experiment {desired.experiment_id}" if desired.experiment_id else "this ends the rollout"
