"""Where evidence comes from: the ledger is asked behind the reconciles' backs, so that a dead one delays nobody.

A look takes what is known by now and has what is missing asked for; whoever looked is called when that has come.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from fairlead.experiment.decision import Action, Decision
from fairlead.experiment.design import Design
from fairlead_operator.api.conditions import Reason
from fairlead_operator.core.canary import compared
from fairlead_operator.core.desired import Desired
from fairlead_operator.core.evidence import NO_EVIDENCE, Evidence, Trouble
from fairlead_operator.core.goal import is_registered
from fairlead_operator.core.record import Record, Recorded, Untold
from fairlead_operator.errors import OperatorError
from fairlead_operator.runtime.keys import ObjectKey
from fairlead_operator.runtime.ledger import (
    DesignConflict,
    ExperimentUnknown,
    LedgerClient,
    LedgerRefused,
    page_of,
)

_log = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 60.0
_PATIENCE = 1
"""Failures in a row that are nobody's news."""


class EvidenceSource(Protocol):
    """Tells what is known of experiments."""

    def look(self, desired: Desired, record: Record, changed: Callable[[], None]) -> Evidence:
        """Return what is known by now, at once; ``changed`` is called when more is.

        Args:
            desired: What is asked for.
            record: What is remembered.
            changed: Has the deployment looked at again; called on the event loop.
        """

    def due_s(self, key: ObjectKey) -> float | None:
        """Return the seconds until a deployment is to be looked at again for more; None if it is not."""

    def forget(self, key: ObjectKey) -> None:
        """Forget a deployment."""

    async def close(self) -> None:
        """End what is being asked."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How often the ledger is asked."""

    every_s: float
    """How old an analysis may be before another is asked for."""
    ledger: Callable[[], str | None]
    """Gives the address of the ledger of a deployment that names none, if there is one."""


@dataclass(slots=True)
class _Known:
    """What is known of one deployment's experiment."""

    salt: str = ""
    evidence: Evidence = NO_EVIDENCE
    failures: int = 0
    """In a row."""
    due_s: float = 0.0
    """When the ledger may be asked again."""
    wants: bool = False
    """Whether there is anything to ask or to tell."""
    is_urgent: bool = False
    """Whether that does not wait for the next regular time."""
    is_lost: bool = False
    """Whether the ledger has forgotten a design that it had."""
    is_refused: bool = False
    """Whether the ledger has refused: of what is decided nothing more is asked then."""
    task: asyncio.Task[None] | None = None

    @property
    def is_asking(self) -> bool:
        """Whether the ledger is being asked."""
        return self.task is not None and not self.task.done()


@dataclass(frozen=True, slots=True)
class _Errand:
    """What is to be told and asked at once."""

    ledger: str
    salt: str
    design: Design | None
    """To be registered."""
    untold: tuple[Untold, ...]
    phases: tuple[int, ...]
    """To be asked for."""

    def __bool__(self) -> bool:
        """Return whether there is anything to do."""
        return bool(self.design or self.phases or self.untold)


@dataclass(slots=True)
class LedgerEvidence:
    """Evidence of the ledger; what is kept here can be asked for again."""

    client: LedgerClient
    terms: Terms
    now: Callable[[], float]
    """A clock that never goes back, seconds; the pace of asking, not the experiment's time."""
    randomness: random.Random
    _known: dict[ObjectKey, _Known] = field(default_factory=dict)

    def look(self, desired: Desired, record: Record, changed: Callable[[], None]) -> Evidence:
        """Return what is known by now; see ``EvidenceSource``."""
        key, desired = ObjectKey(desired.namespace, desired.name), compared(desired, record)
        if desired.design is None and not record.untold:
            self.forget(key)
            return NO_EVIDENCE
        ledger = desired.ledger or self.terms.ledger()
        if ledger is None:
            return _NOWHERE
        known = self._known.setdefault(key, _Known())
        if known.salt != desired.salt:
            self.forget(key)
            page = page_of(ledger, desired.salt)
            known = self._known[key] = _Known(desired.salt, replace(NO_EVIDENCE, page=page))
        errand = _errand(known, ledger, desired, record)
        known.wants = bool(errand)
        known.is_urgent = bool(errand.design or errand.untold) and not known.failures
        if errand and not known.is_asking and (known.is_urgent or self.now() >= known.due_s):
            known.task = asyncio.create_task(self._run(known, errand, changed))
        return known.evidence

    def due_s(self, key: ObjectKey) -> float | None:
        """Return when to look again; see ``EvidenceSource``."""
        known = self._known.get(key)
        if known is None or not known.wants or known.is_asking:
            return None
        return 0.0 if known.is_urgent else max(known.due_s - self.now(), 0.0)

    def ask_again(self) -> None:
        """Ask for what is missing at the next look, whatever pause failures led to: the ledger is known to answer."""
        for known in self._known.values():
            known.due_s = self.now()

    def forget(self, key: ObjectKey) -> None:
        """Forget a deployment."""
        known = self._known.pop(key, None)
        if known is not None and known.task is not None:
            known.task.cancel()

    async def close(self) -> None:
        """End what is being asked."""
        tasks = [known.task for known in self._known.values() if known.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.client.session.aclose()

    async def _run(self, known: _Known, errand: _Errand, changed: Callable[[], None]) -> None:
        before = known.evidence
        try:
            await self._carry_out(known, errand)
        except OperatorError as error:
            self._note_failure(known, errand, error)
        else:
            known.failures, known.is_lost = 0, False
            known.evidence = replace(known.evidence, trouble=None)
            known.due_s = self.now() + self.terms.every_s
        if known.evidence != before or known.is_lost:
            changed()

    async def _carry_out(self, known: _Known, errand: _Errand) -> None:
        """Tell and ask; what has come is kept, whatever fails after it.

        Raises:
            OperatorError: Something did.
        """
        if errand.design is not None:
            await self.client.register(errand.ledger, errand.design)
            known.evidence = replace(known.evidence, registered=errand.design.digest)
        for one in errand.untold:
            recorded = await self._decided(errand, one)
            known.evidence = replace(known.evidence, told={**known.evidence.told, one.salt: recorded})
        for phase in errand.phases:
            report = await self.client.analysis(errand.ledger, errand.salt, phase)
            known.evidence = replace(known.evidence, reports={**known.evidence.reports, phase: report})

    async def _decided(self, errand: _Errand, one: Untold) -> Recorded | None:
        """Tell a decision; a ledger that knows nothing of an earlier experiment has no record to make.

        Raises:
            OperatorError: It cannot be told now.
        """
        try:
            return await self.client.decide(errand.ledger, one.salt, _told(one))
        except ExperimentUnknown:
            if one.salt == errand.salt and errand.design is None:
                raise
            _log.warning("a decision has no record: the ledger does not know it", extra={"experiment": one.salt})
            return None

    def _note_failure(self, known: _Known, errand: _Errand, error: OperatorError) -> None:
        known.failures += 1
        known.is_refused = isinstance(error, LedgerRefused)
        _log.info("the ledger gave no evidence", extra={"experiment": errand.salt, "error": str(error)[:300]})
        known.is_lost = isinstance(error, ExperimentUnknown) and not known.is_lost
        if known.is_lost:  # it may have been restored from an old copy: it is told again at once
            known.due_s = self.now()
            return
        most_s = max(_LONGEST_PAUSE_S, self.terms.every_s)
        pause_s = min(self.terms.every_s * 2.0 ** min(known.failures - 1, 10), most_s)
        known.due_s = self.now() + pause_s * self.randomness.uniform(0.5, 1.0)
        if known.failures > _PATIENCE or errand.design is not None or isinstance(error, LedgerRefused):
            known.evidence = replace(known.evidence, trouble=_trouble(errand, error))


def _errand(known: _Known, ledger: str, desired: Desired, record: Record) -> _Errand:
    """Return what is to be told and asked of a deployment now."""
    design = desired.design
    run = record.run if record.run is not None and record.run.id == desired.salt else None
    has = design is not None and (known.evidence.registered == design.digest or is_registered(desired, record))
    is_over = run is not None and run.is_over
    phases: range = range(0)
    if design is not None and has and run is not None:
        begun = range(min(run.step + 1, len(design.phases)))
        was_asked = known.is_refused or begun[-1] in known.evidence.reports
        if run.state.is_splitting or (run.decision is not None and not was_asked):  # for a status that tells all of it
            phases = begun
    elif design is not None and has and desired.strategy.name == "Manual":
        phases = range(1)
    return _Errand(
        ledger=ledger,
        salt=desired.salt,
        design=design if known.is_lost or not (has or is_over) else None,
        untold=tuple(one for one in record.untold if one.salt not in known.evidence.told),
        phases=tuple(phases),
    )


def _told(one: Untold) -> Decision:
    decision = one.decision
    return Decision(
        action=Action(decision.verdict),
        reason=decision.reason,
        winner=decision.winner,
        phase=decision.phase,
        at_us=round(decision.at_s * 1e6),
    )


def _trouble(errand: _Errand, error: OperatorError) -> Trouble:
    if isinstance(error, DesignConflict):
        message = f"the ledger has another design of {errand.salt}: {error}; choose a new experiment.id"
        return Trouble(Reason.DESIGN_CONFLICT, message)
    if isinstance(error, LedgerRefused):
        return Trouble(Reason.LEDGER_REFUSED, f"the ledger refuses: {error}; compare API keys and versions")
    message = f"the ledger does not answer: {error}; nothing is promoted, rolled back or ramped up meanwhile"
    return Trouble(Reason.LEDGER_UNREACHABLE, message)


_NOWHERE = Evidence(
    trouble=Trouble(
        Reason.LEDGER_MISSING,
        "the experiment is to be judged and no ledger is known; give spec.feedback.ledger.url",
    )
)
