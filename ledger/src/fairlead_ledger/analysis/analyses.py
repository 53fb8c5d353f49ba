"""What the evidence of an experiment says, what was said over time, and what was decided on it. For any thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from fairlead.experiment import record as records
from fairlead.experiment.analysis import analyse
from fairlead.experiment.decision import Action, Decision
from fairlead.experiment.design import Design
from fairlead.experiment.errors import ExperimentError
from fairlead.experiment.evidence import Evidence, PhaseEvidence
from fairlead.experiment.record import DecisionRecord
from fairlead.experiment.report import Report
from fairlead_ledger.analysis import looks
from fairlead_ledger.analysis.looks import Look
from fairlead_ledger.analysis.silence import EXPOSURES, GATEWAY, is_gateway_silent, is_silent
from fairlead_ledger.errors import Conflict, NotFound, Unreadable
from fairlead_ledger.ledger import Ledger
from fairlead_ledger.store import grounds, verdicts
from fairlead_ledger.store import records as kept_records
from fairlead_ledger.store.evidence import gateway_heard_us, heard_us
from fairlead_ledger.store.experiments import Experiment, State
from fairlead_ledger.store.grounds import Grounds


@dataclass(frozen=True, slots=True)
class Everything:
    """All that is known of an experiment at one moment; once it was decided, what its record says."""

    experiment: Experiment
    design: Design
    reports: Sequence[Report]
    """Of the phases that have begun, in order."""
    looks: Mapping[int, Sequence[Look]]
    """By phase."""
    record: DecisionRecord | None
    started_us: int | None
    """When the first phase began; None before."""


@dataclass(frozen=True, slots=True)
class Analyses:
    """Analyses of a ledger's experiments."""

    ledger: Ledger

    def report(self, salt: str, phase: int | None = None) -> Report:
        """Return what the evidence of a phase says now, and remember it for the figure over time.

        A report that a decision may rest on is kept with its evidence. Of the phase that was decided on, it is the one
        of the record.

        Args:
            salt: Of the experiment.
            phase: Number of a planned step; None for the last one that has begun.

        Raises:
            NotFound: It is not declared.
            Conflict: Its units are no longer kept.
            Unreadable: No such phase is planned, or its evidence cannot be judged.
        """
        experiment, design, evidence, now_us = self._now(salt)
        number = _planned(design, phase if phase is not None else _last(design, evidence))
        record = self._kept(experiment)
        if record is not None and _is_final(record) and record.report.phase == number:
            return record.report
        report = _judged(design, evidence, number, now_us)
        if experiment.state is State.RUNNING:
            self._remember(experiment, report)
            self._keep_grounds(experiment, Grounds(_begun(evidence, number, now_us), report))
        return report

    def evidence(self, salt: str) -> Evidence:
        """Return what was seen of an experiment.

        Raises:
            NotFound: It is not declared.
            Conflict: Its units are no longer kept.
        """
        return self._now(salt)[2]

    def everything(self, salt: str) -> Everything:
        """Return all that is known of an experiment.

        Raises:
            NotFound: It is not declared.
            Conflict: Its units are no longer kept, and it has no record.
            Unreadable: Its evidence cannot be judged.
        """
        experiment = self.ledger.experiment(salt)
        record = self._kept(experiment)
        if record is not None and _is_final(record):
            design, evidence, now_us = record.design, record.evidence, record.report.at_us
        else:
            experiment, design, evidence, now_us = self._now(salt)
        reports = [_judged(design, evidence, phase.number, now_us) for phase in evidence.phases]
        with self.ledger.database.reading() as connection:
            seen = {one.number: looks.read(connection, experiment.id, one.number) for one in evidence.phases}
        started_us = evidence.phases[0].started_us if evidence.phases else None
        return Everything(experiment, design, reports, seen, record, started_us)

    def record(self, salt: str) -> DecisionRecord:
        """Return the record of what was decided.

        Raises:
            NotFound: It is not declared, or nothing was decided.
        """
        kept = self._kept(self.ledger.experiment(salt))
        if kept is None:
            raise NotFound(f"nothing was decided of {salt} yet")
        return kept

    def decide(self, salt: str, decision: Decision) -> tuple[DecisionRecord, bool]:
        """Make the record of a decision; return it, and whether it is new.

        It holds the look that was decided on, where one was (``store.grounds``), and what had been seen by the end.
        The experiment ends with it, so that its evidence stays what the record says. A hold decides nothing: the
        experiment goes on, and the record of what is decided later takes its place.

        Raises:
            NotFound: It is not declared.
            Conflict: Another decision was told before.
            Unreadable: No such phase is planned, or its evidence cannot be judged.
        """
        experiment = self.ledger.experiment(salt)
        _planned(_declared(experiment), decision.phase)
        if (kept := _told_before(salt, self._kept(experiment), decision)) is not None:
            return kept, False
        now_us = self.ledger.clock.now_us()
        with self.ledger.deciding(salt, now_us) as (connection, current, seen):
            kept = _told_before(salt, _read(connection, current.id), decision)
            if kept is not None:
                return kept, False
            design = _declared(current)
            evidence = _begun(self._with_silence(connection, current, seen, now_us), decision.phase, now_us)
            basis = _basis(connection, current, decision)
            if basis is None:
                basis = Grounds(evidence, _judged(design, evidence, decision.phase, now_us))
            record = records.make(design, basis.evidence, basis.report, decision, at_end=evidence)
            kept_records.add(self.ledger.database, connection, current.id, record.json_text, now_us)
            verdicts.keep(self.ledger.database, connection, current.id, basis.report, decision.action)
            if _is_final(record):
                kept_records.end(connection, current.id, now_us)
        return record, True

    def _now(self, salt: str) -> tuple[Experiment, Design, Evidence, int]:
        ended_us = self.ledger.experiment(salt).ended_us
        now_us = self.ledger.clock.now_us() if ended_us is None else ended_us
        experiment, evidence = self.ledger.evidence_of(salt, now_us)
        if experiment.state is State.RUNNING:
            with self.ledger.database.reading() as connection:
                evidence = self._with_silence(connection, experiment, evidence, now_us)
        return experiment, _declared(experiment), evidence, now_us

    def _kept(self, experiment: Experiment) -> DecisionRecord | None:
        with self.ledger.database.reading() as connection:
            return _read(connection, experiment.id)

    def _with_silence(
        self, connection: Connection, experiment: Experiment, evidence: Evidence, now_us: int
    ) -> Evidence:
        """Return evidence that says so if servers or gateways have stopped telling."""
        if not evidence.phases:
            return evidence
        seen = looks.read_all(connection, experiment.id)
        silent = {
            EXPOSURES: is_silent(seen, heard_us(connection, experiment.id), now_us),
            GATEWAY: is_gateway_silent(gateway_heard_us(connection, experiment.salt), now_us),
        }
        down = {*evidence.down, *(source for source, is_down in silent.items() if is_down)}
        return evidence.model_copy(update={"down": tuple(sorted(down))}) if down else evidence

    def _keep_grounds(self, experiment: Experiment, found: Grounds) -> None:
        if grounds.may_decide(found.report):
            database = self.ledger.database
            with database.writing() as connection:
                grounds.keep(database, connection, experiment.id, found)

    def _remember(self, experiment: Experiment, report: Report) -> None:
        database = self.ledger.database
        with database.reading() as connection:
            seen = looks.read(connection, experiment.id, report.phase)
            heard = heard_us(connection, experiment.id)
        if looks.is_due(seen, report.at_us):
            with database.writing() as connection:
                looks.keep(database, connection, experiment.id, report.phase, Look.of(report, heard))
                verdicts.keep(database, connection, experiment.id, report)


def _read(connection: Connection, experiment_id: int) -> DecisionRecord | None:
    text = kept_records.latest(connection, experiment_id)
    return None if text is None else DecisionRecord.model_validate_json(text)


def _told_before(salt: str, kept: DecisionRecord | None, decision: Decision) -> DecisionRecord | None:
    """Return the record of a decision that is told again; None where another one may be made.

    Raises:
        Conflict: Another decision was told before.
    """
    if kept is None:
        return None
    if kept.decision == decision:
        return kept
    if _is_final(kept):
        raise Conflict(f"{salt}: {kept.decision.action} was decided before ({kept.decision.reason})")
    return None


def _is_final(kept: DecisionRecord) -> bool:
    """Say whether no other decision may follow."""
    return kept.decision.action is not Action.HOLD


def _basis(connection: Connection, experiment: Experiment, decision: Decision) -> Grounds | None:
    """Return the look that a decision rests on; None if it does not rest on any."""
    found = grounds.read(connection, experiment.id, decision.phase, decision.reason)
    fits = found is not None and (decision.winner is None or found.report.winner == decision.winner)
    return found if fits else None


def _declared(experiment: Experiment) -> Design:
    if experiment.design is None:
        raise NotFound(f"no experiment {experiment.salt} is declared")
    return experiment.design


def _last(design: Design, evidence: Evidence) -> int:
    return evidence.phases[-1].number if evidence.phases else design.phases[0].number


def _planned(design: Design, phase: int) -> int:
    if phase not in {one.number for one in design.phases}:
        raise Unreadable(f"phase {phase} is not planned; {len(design.phases)} are, from {design.phases[0].number}")
    return phase


def _begun(evidence: Evidence, phase: int, now_us: int) -> Evidence:
    """Return evidence with a phase in which nobody has been seen yet, if that one is missing."""
    if evidence.phase(phase) is not None:
        return evidence
    phases = (*evidence.phases, PhaseEvidence(number=phase, started_us=now_us, arms={}))
    return evidence.model_copy(update={"phases": tuple(sorted(phases, key=lambda one: one.number))})


def _judged(design: Design, evidence: Evidence, phase: int, now_us: int) -> Report:
    try:
        return analyse(design, _begun(evidence, phase, now_us), phase=phase, now_us=now_us)
    except ExperimentError as wrong:
        raise Unreadable(str(wrong)) from None
