"""One reconcile: observe, advance, plan, apply. It may stop anywhere and be run again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fairlead_operator.core.canary import compared
from fairlead_operator.core.desired import Desired
from fairlead_operator.core.evidence import NO_EVIDENCE, Evidence, analysis_of, noted
from fairlead_operator.core.observed import Observed
from fairlead_operator.core.plan import (
    Action,
    InstallFilter,
    ProveFilter,
    RemoveFilter,
    StopServer,
    WriteRoute,
    plan,
)
from fairlead_operator.core.record import Record
from fairlead_operator.core.rollout import advance
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
    """What went wrong first; None if nothing did."""


async def reconcile(
    platform: Platform,
    desired: Desired,
    record: Record,
    *,
    now_s: float,
    remember: Callable[[Record], Awaitable[None]],
    evidence: Evidence = NO_EVIDENCE,
) -> Outcome:
    """Bring ``platform`` a step nearer to ``desired``.

    What one action cannot do stops only what depends on it: a treatment that is refused harms no other server, and a
    gateway that does not obey keeps nobody's pods from being made.

    Args:
        platform: What is observed and acted upon.
        desired: What is asked for.
        record: What is remembered.
        now_s: Unix time, seconds.
        remember: Stores a changed record; awaited before anything is done about it.
        evidence: What the ledger has said of the experiment.
    """
    done = 0
    problem: OperatorError | None = None
    observed = await platform.observe()
    desired = compared(desired, record)
    known = noted(desired, record, evidence)
    advanced = advance(desired, observed, known, analysis_of(desired, known, evidence), now_s)
    if advanced != record:
        await remember(advanced)
    failed: list[Action] = []
    for action in plan(compared(desired, advanced), observed, advanced):
        if any(_depends(action, other) for other in failed):
            continue
        try:
            await platform.apply(action)
            done += 1
        except OperatorError as error:
            problem = problem or error
            failed.append(action)
            if error.ends_pass:
                problem = error
                break
    if done or problem is not None:
        observed = await platform.observe()
    return Outcome(observed, advanced, done, problem)


def _depends(action: Action, failed: Action) -> bool:
    """Return whether ``action`` may not be carried out once ``failed`` was not."""
    match failed:
        case WriteRoute():
            return isinstance(action, InstallFilter | ProveFilter | RemoveFilter | StopServer)
        case InstallFilter():
            return isinstance(action, ProveFilter)
        case _:
            return False
