"""One reconcile: observe, advance, plan, apply. It may stop anywhere and be run again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fairlead_operator.core.desired import Desired
from fairlead_operator.core.observed import Observed
from fairlead_operator.core.plan import plan
from fairlead_operator.core.record import Record
from fairlead_operator.core.rollout import NO_DATA, Analysis, advance
from fairlead_operator.errors import OperatorError
from fairlead_operator.platforms.interface import Platform


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a reconcile ended."""

    observed: Observed
    """The world afterwards."""
    record: Record
    """What is remembered from now on."""
    actions: int
    """How many actions were carried out."""
    problem: OperatorError | None
    """What stopped it; None if nothing did."""


async def reconcile(
    platform: Platform,
    desired: Desired,
    record: Record,
    *,
    now_s: float,
    remember: Callable[[Record], Awaitable[None]],
    analysis: Analysis = NO_DATA,
) -> Outcome:
    """Bring ``platform`` a step nearer to ``desired``.

    Errors that a later run may not meet end this run and are told in the outcome; others are raised.

    Args:
        platform: What is observed and acted upon.
        desired: What is asked for.
        record: What is remembered.
        now_s: Unix time, seconds.
        remember: Stores a changed record; awaited before anything is done about it.
        analysis: The evidence on the run in force.
    """
    done = 0
    problem: OperatorError | None = None
    observed = await platform.observe()
    advanced = advance(desired, observed, record, analysis, now_s)
    if advanced != record:
        await remember(advanced)
    try:
        for action in plan(desired, observed, advanced):
            await platform.apply(action)
            done += 1
    except OperatorError as error:
        if not error.retryable:
            raise
        problem = error
    if done or problem is not None:
        observed = await platform.observe()
    return Outcome(observed, advanced, done, problem)
