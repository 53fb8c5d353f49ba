"""A canary that is compared: two revisions of one variant, and every run an experiment of its own. Pure.

A spec names the candidate alone; what it is compared to, and under which salt, is known once its run has begun. So a
design is made when a run begins, and kept in it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from fairlead.experiment.design import canary_id
from fairlead_operator.core.desired import Desired, Revision
from fairlead_operator.core.experiment import Plan, design_of
from fairlead_operator.core.record import Comparison, Record, Run


def run_of(desired: Desired, record: Record) -> Run | None:
    """Return the run that rolls out the control's revision, as ``desired`` compares it; None if there is none.

    One that is over speaks of its candidate, however others would be compared by now.
    """
    run = record.run
    if run is None or run.candidate != candidate_of(desired).name:
        return None
    return run if run.is_over or _is_compared_so(desired, run) else None


def compared(desired: Desired, record: Record) -> Desired:
    """Return ``desired`` with what its canary under way is compared by; as it is for other strategies."""
    if desired.canary is None:
        return desired
    run = run_of(desired, record)
    if run is None or run.comparison is None:
        return replace(desired, salt=desired.salt_of("rollout"), design=None, experiment_id=None)
    design = run.comparison.design
    return replace(desired, salt=design.salt, design=design, experiment_id=design.salt.rpartition("/")[2])


def comparison_of(desired: Desired, stable: Revision, now_s: float, taken: Collection[str]) -> Comparison | None:
    """Return how a run that begins now is compared; None if it is not.

    Args:
        desired: What is asked for.
        stable: The revision that serves.
        now_s: Unix time, seconds.
        taken: Salts of earlier runs: a revision may be tried again, and no unit is to know beforehand where it lands.
    """
    if desired.canary is None:
        return None
    candidate, second = candidate_of(desired).name, int(now_s)
    while desired.salt_of(canary_id(candidate, second)) in taken:
        second += 1
    return _comparison(desired, desired.salt_of(canary_id(candidate, second)), stable.name, stable.prediction)


def candidate_of(desired: Desired) -> Revision:
    """Return the control's revision that the spec asks for."""
    return desired.revisions[desired.control]


def _is_compared_so(desired: Desired, run: Run) -> bool:
    """Return whether a run is compared as ``desired`` would compare it now: what its design froze is as it was."""
    if run.comparison is None or desired.canary is None:
        return run.comparison is None and desired.canary is None
    began = run.comparison.design
    if desired.design is began:  # as ``compared`` has made it of this very run
        return True
    return run.comparison == _comparison(desired, began.salt, began.control, began.digests[began.control])


def _comparison(desired: Desired, salt: str, stable: str, prediction: str) -> Comparison | None:
    candidate = candidate_of(desired)
    plan = Plan(
        salt=salt,
        control=stable,
        treatments=(candidate.name,),
        weights_bp=tuple({candidate.name: step.weights_bp[desired.control]} for step in desired.strategy.steps),
        predictions={stable: prediction, candidate.name: candidate.prediction},
    )
    design = design_of(desired.canary, plan)
    return Comparison(design, desired.reached_by) if design is not None else None
