"""The ledger itself: what is told is judged and kept, and what is kept becomes evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

from sqlalchemy import Connection

from fairlead.assignment import LayoutError
from fairlead.clock import Clock
from fairlead.experiment.design import Design
from fairlead.experiment.errors import UnfitDesign
from fairlead.experiment.evidence import Evidence
from fairlead.experiment.metrics import check
from fairlead.feedback.keys import KeyRing, deployment_of
from fairlead.feedback.messages import ExposureReport, Fate, Outcome, OutcomeAnswer, Refusal
from fairlead_ledger.errors import Conflict, NotFound, Unreadable
from fairlead_ledger.intake.judge import Exposed, Joined, Judge, Named
from fairlead_ledger.intake.rules import Refused, Rules
from fairlead_ledger.store import erasure, experiments, outcomes, reports, verdicts
from fairlead_ledger.store.database import Database
from fairlead_ledger.store.directory import Directory
from fairlead_ledger.store.evidence import EvidenceReader
from fairlead_ledger.store.experiments import Experiment, State
from fairlead_ledger.store.fold import Backlog, backlog, fold, is_due
from fairlead_ledger.store.verdicts import Last

MOST_FOLDED = 5000
"""A transaction of so many takes about 50 ms, during which nothing else is written."""


class Ledger:
    """Experiments, and what servers and applications told of them; safe to use from any thread."""

    def __init__(self, database: Database, keys: KeyRing, clock: Clock, *, most_folded: int = MOST_FOLDED) -> None:
        """Make the ledger.

        Args:
            database: Where everything is kept; its tables are there.
            keys: The root ring.
            clock: The experiments' time.
            most_folded: Outcomes that are folded in one transaction.
        """
        self.database = database
        self.clock = clock
        self._keys = keys
        self._most_folded = most_folded
        self._directory = Directory(database)
        self._reader = EvidenceReader()

    def declare(self, design: Design) -> bool:
        """Keep the design of an experiment; return whether it was new.

        Raises:
            Conflict: Another design is kept.
            Unreadable: It cannot be judged; the message names the field and the fix.
        """
        try:
            check(design)
            Rules.layouts_of(design)
        except (UnfitDesign, LayoutError) as error:
            raise Unreadable(str(error)) from None
        with self.database.writing() as connection:
            return experiments.declare(self.database, connection, design, self.clock.now_us())

    def experiment(self, salt: str) -> Experiment:
        """Return an experiment as it is now.

        Raises:
            NotFound: Nothing is known of it.
        """
        with self.database.reading() as connection:
            found = experiments.find(connection, [salt])
        if salt not in found:
            raise NotFound(f"no experiment {salt} is declared")
        return found[salt]

    def experiments(self) -> list[Experiment]:
        """Return every experiment, the latest first."""
        with self.database.reading() as connection:
            return list(experiments.every(connection))

    def verdicts(self) -> Mapping[int, Last]:
        """Return what was said of each experiment last, by its number."""
        with self.database.reading() as connection:
            return verdicts.every(connection)

    def verdict(self, experiment_id: int) -> Last | None:
        """Return what was said of an experiment last; None if nobody has looked yet."""
        with self.database.reading() as connection:
            return verdicts.of(connection, experiment_id)

    def judge(self, told: Sequence[Outcome], may_tell_of: Callable[[str], bool]) -> list[Joined | Refused]:
        """Say of each outcome what it is about; nothing is written.

        Args:
            told: Outcomes as they came.
            may_tell_of: Whether whoever tells may tell of the experiment with a salt; others are unknown to it.
        """
        judge = Judge(self._keys, {})
        about = [judge.told(outcome) for outcome in told]
        salts = {
            one.salt if isinstance(one, Named) else one.context.salt for one in about if not isinstance(one, Refused)
        }
        known = self._directory.experiments({salt for salt in salts if may_tell_of(salt)})
        rules = {salt: Rules.of(one, one.design) for salt, one in known.items() if one.design}
        judge = Judge(self._keys, rules)
        units: dict[int, set[bytes]] = {}
        for one in about:
            if isinstance(one, Named) and one.salt in rules:
                units.setdefault(rules[one.salt].id, set()).add(one.digest)
        exposed = self._exposures(units)
        judged: list[Joined | Refused] = []
        for outcome, one in zip(told, about, strict=True):
            match one:
                case Refused():
                    judged.append(one)
                case Named(salt=salt, digest=digest):
                    id_ = rules[salt].id if salt in rules else 0
                    judged.append(judge.by_unit(outcome, one, exposed.get((id_, digest), ())))
                case _:
                    judged.append(judge.by_token(outcome, one))
        return judged

    def take_outcomes(self, batches: Sequence[Sequence[Joined | Refused]]) -> list[OutcomeAnswer]:
        """Keep batches of judged outcomes in one transaction; return the answer to each."""
        together = [one for batch in batches for one in batch]
        settled = iter(outcomes.take(self.database, self._directory, together, self.clock.now_us()))
        return [_answer(list(islice(settled, len(batch)))) for batch in batches]

    def take_reports(self, told: Sequence[ExposureReport]) -> list[bool]:
        """Keep reports of servers in one transaction; return of each whether it was new."""
        return reports.take(self.database, self._directory, told, self.clock.now_us())

    def fold(self, experiment: Experiment, now_us: int) -> bool:
        """Fold a bounded number of outcomes that are old enough; return whether more of them are left."""
        with self.database.writing() as connection:
            return fold(self.database, connection, experiment, now_us, most=self._most_folded)

    def due(self, now_us: int) -> list[Experiment]:
        """Return the experiments in which something is old enough to be folded."""
        with self.database.reading() as connection:
            found = experiments.running(connection)
            return [one for one in found if is_due(connection, one, now_us)]

    def evidence_of(self, salt: str, now_us: int) -> tuple[Experiment, Evidence]:
        """Return an experiment and what was seen of it.

        Args:
            salt: ``namespace/name/experiment-id``.
            now_us: By the experiments' clock; what is old enough then is folded before.

        Raises:
            NotFound: It is not declared.
            Conflict: Its units are no longer kept.
        """
        self._fold_whole(self.experiment(salt), now_us)
        with self.database.reading() as connection:
            return self._evidence(connection, salt, now_us, self._reader)

    @contextmanager
    def deciding(self, salt: str, now_us: int) -> Iterator[tuple[Connection, Experiment, Evidence]]:
        """Begin a transaction in which nothing of an experiment changes, with what was seen of it until then.

        For ``store.records``: what is decided in it rests on exactly this evidence.

        Raises:
            NotFound: It is not declared.
            Conflict: Its units are no longer kept.
        """
        experiment = self.experiment(salt)
        self._fold_whole(experiment, now_us)
        with self.database.writing() as connection:
            self.database.own(connection, experiment.id)
            while fold(self.database, connection, experiment, now_us, most=self._most_folded):
                pass
            # What was folded here may be undone: nothing of it is remembered.
            yield (connection, *self._evidence(connection, salt, now_us, EvidenceReader()))

    def backlog(self) -> Backlog:
        """Return what waits to be folded."""
        now_us = self.clock.now_us()
        with self.database.reading() as connection:
            return backlog(connection, experiments.running(connection), now_us)

    def erase(self, salt: str, unit: str) -> bool:
        """Remove everything that is kept of a unit in an experiment; return whether there was anything.

        Raises:
            NotFound: Nothing is known of the experiment.
        """
        experiment = self.experiment(salt)
        digest = self._keys.of(deployment_of(salt)).unit(unit.encode(), salt)
        with self.database.writing() as connection:
            return erasure.erase(self.database, connection, experiment.id, digest)

    def purge(self, retention_s: float) -> None:
        """Remove the units of experiments that ended, or were last told of, longer ago than that."""
        now_us = self.clock.now_us()
        with self.database.reading() as connection:
            outdated = erasure.outdated(connection, now_us - round(retention_s * 1e6))
        for id_ in outdated:
            erasure.purge(self.database, id_, now_us)

    def _fold_whole(self, experiment: Experiment, now_us: int) -> None:
        while experiment.state is State.RUNNING and self.fold(experiment, now_us):
            pass

    def _evidence(
        self, connection: Connection, salt: str, now_us: int, reader: EvidenceReader
    ) -> tuple[Experiment, Evidence]:
        experiment = experiments.find(connection, [salt])[salt]
        if experiment.design is None:
            raise NotFound(f"no experiment {salt} is declared")
        if experiment.purged_us is not None:
            raise Conflict(f"{salt} ended so long ago that its units are no longer kept; its record is")
        return experiment, reader.evidence(connection, experiment, experiment.design, now_us)

    def _exposures(self, units: dict[int, set[bytes]]) -> dict[tuple[int, bytes], Sequence[Exposed]]:
        if not units:
            return {}
        with self.database.reading() as connection:
            return dict(outcomes.exposures(connection, units))


def _answer(settled: Sequence[outcomes.Settled]) -> OutcomeAnswer:
    return OutcomeAnswer(
        accepted=sum(one is Fate.ACCEPTED for one in settled),
        duplicates=sum(one is Fate.DUPLICATE for one in settled),
        refused=tuple(
            Refusal(index=index, fate=one.fate, message=one.message)
            for index, one in enumerate(settled)
            if isinstance(one, Refused)
        ),
    )
