"""One reconcile: observe, plan, apply. It may stop anywhere and be run again."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead_operator.core.desired import Desired
from fairlead_operator.core.observed import Observed
from fairlead_operator.core.plan import plan
from fairlead_operator.errors import OperatorError
from fairlead_operator.platforms.interface import Platform


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a reconcile ended."""

    observed: Observed
    """The world afterwards."""
    actions: int
    """How many actions were carried out."""
    problem: str | None
    """What stopped it; None if nothing did."""


async def reconcile(platform: Platform, desired: Desired, phase: int) -> Outcome:
    """Bring ``platform`` a step nearer to ``desired``.

    Errors that a later run may not meet end this run and are told in the outcome; others are raised.
    """
    done = 0
    problem = None
    try:
        for action in plan(desired, await platform.observe(), phase):
            await platform.apply(action)
            done += 1
    except OperatorError as error:
        if not error.retryable:
            raise
        problem = str(error)
    return Outcome(await platform.observe(), done, problem)
