"""What weights a rollout wants at the state it has come to. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from fairlead import BUCKETS
from fairlead_operator.core.canary import compared, run_of
from fairlead_operator.core.desired import Desired, Step
from fairlead_operator.core.record import Record, Run, State


@dataclass(frozen=True, slots=True)
class Goal:
    """What weights the rollout wants now; the plan gets there as readiness allows."""

    weights_bp: Mapping[str, int]
    """By arm, in the order of the slots."""
    ahead_bp: Mapping[str, int]
    """Weights that replicas are made ready for: these, or the next step's."""
    base: str | None
    """Revision that has what no arm has, where it is not simply the control's; Canary only."""
    winner: str | None
    """Variant that takes control's part."""
    observes: bool
    """Whether experiment headers may be sent."""
    capacity: int
    """Replicas that serve everything."""


def goal_of(desired: Desired, record: Record) -> Goal:
    """Return what the rollout wants now."""
    desired = compared(desired, record)
    run, invalid = current_run(desired, record), record.invalid == desired.salt
    nothing = dict.fromkeys(desired.arms, 0)
    if desired.strategy.name == "Manual":
        weights = nothing if invalid else dict(desired.strategy.steps[0].weights_bp)
        least = desired.scaling[desired.control].min_replicas
        observes = desired.experiment_id is not None and is_registered(desired, record)
        return Goal(weights, weights, None, None, observes, least)
    base = record.stable.name if desired.strategy.name == "Canary" and record.stable else None
    still = Goal(nothing, nothing, base, None, observes=False, capacity=record.capacity)
    if run is None:
        return still
    winner = winner_of(desired, run)
    if winner is not None:  # decided: whether the gateway obeys the law does not matter any more
        weights = {arm: width if arm == winner else 0 for arm, width in step_of(desired, run).weights_bp.items()}
        return replace(still, weights_bp=weights, ahead_bp=weights, winner=winner)
    return still if invalid else _under_way(desired, record, run, still)


def _under_way(desired: Desired, record: Record, run: Run, still: Goal) -> Goal:
    """Return what an undecided run wants."""
    steps = desired.strategy.steps
    if run.state in {State.PENDING, State.DEPLOYING}:
        return replace(still, ahead_bp=steps[0].weights_bp)
    if not run.state.is_splitting:
        return still
    ahead = steps[min(run.step + run.preparing, len(steps) - 1)].weights_bp
    weights = step_of(desired, run).weights_bp
    observes = desired.experiment_id is not None and is_registered(desired, record)
    return replace(still, weights_bp=weights, ahead_bp=ahead, observes=observes)


def is_registered(desired: Desired, record: Record) -> bool:
    """Return whether the ledger is known to have the design; so it is, too, where there is none."""
    if desired.design is None:
        return True
    return record.registered is not None and record.registered.digest == desired.design.digest


def replicas_for(width_bp: int, capacity: int) -> int:
    """Return the replicas that a share of ``width_bp`` needs when ``capacity`` replicas serve everything."""
    return max(1, math.ceil(capacity * width_bp / BUCKETS))


def has_runs(desired: Desired) -> bool:
    """Return whether weight is moved by steps, in runs that are decided."""
    return desired.strategy.name != "Manual"


def current_run(desired: Desired, record: Record) -> Run | None:
    """Return the run if it is the one that ``desired`` speaks of."""
    match desired.strategy.name:
        case "Canary":
            return run_of(desired, record)
        case "Experiment":
            return record.run if record.run is not None and record.run.id == desired.salt else None
        case _:
            return None


def winner_of(desired: Desired, run: Run) -> str | None:
    """Return the variant that a run has promoted, or is promoting; None if there is none."""
    if run.decision is None or run.decision.verdict != "Promote" or run.decision.winner not in desired.revisions:
        return None
    return run.decision.winner if run.state in {State.PROMOTING, State.STABLE} else None


def step_of(desired: Desired, run: Run) -> Step:
    """Return the step that a run is at; the last one if the spec has fewer by now."""
    return desired.strategy.steps[min(run.step, len(desired.strategy.steps) - 1)]
