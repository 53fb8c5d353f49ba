"""Keeps what messages tell, by the same queue and the same transactions as what comes over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from fairlead.feedback.messages import ExposureReport, Outcome, OutcomeAnswer, OutcomeBatch
from fairlead_ledger.errors import Full, LedgerError, Unavailable
from fairlead_ledger.kafka.messages import Read
from fairlead_ledger.service import Service

T = TypeVar("T")


class Later(LedgerError):
    """It cannot be kept now; the message says why, in a word."""


class Unfit(LedgerError):
    """Something of it cannot be kept by any database."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of messages that were kept."""

    new: int
    """Messages, or reports that were not told before."""
    duplicates: int
    """Reports that were told before."""


@dataclass(frozen=True, slots=True)
class Taking:
    """Keeps messages; called in the consumer's own thread."""

    service: Service

    def reports(self, read: Sequence[Read]) -> Taken:
        """Keep reports of servers; they are in the database afterwards.

        Raises:
            Later: Not now.
            Unfit: One of them never.
        """
        waiting = [self._put_report(one.told, one.weight) for one in read if isinstance(one.told, ExposureReport)]
        new = sum([_guarded(one.result) for one in waiting])
        self._count_reports(new, len(waiting) - new)
        return Taken(new, len(waiting) - new)

    def outcomes(self, read: Sequence[Read]) -> Taken:
        """Keep outcomes; they are in the database afterwards. Those that are refused are counted.

        Raises:
            Later: Not now.
            Unfit: One of them never.
        """
        told = [outcome for one in read if isinstance(one.told, OutcomeBatch) for outcome in one.told.outcomes]
        answer = _guarded(self._put_outcomes(told).result)
        self.service.metrics.count_outcomes(answer)
        return Taken(len(read), 0)

    def _put_report(self, report: ExposureReport, weight: int) -> Future[bool]:
        return _guarded(lambda: self.service.queue.submit(self.service.ledger.take_reports, report, weight))

    def _put_outcomes(self, told: Sequence[Outcome]) -> Future[OutcomeAnswer]:
        def put() -> Future[OutcomeAnswer]:
            judged = self.service.ledger.judge(told, lambda _: True)
            return self.service.queue.submit(self.service.ledger.take_outcomes, judged, len(judged))

        return _guarded(put)

    def _count_reports(self, new: int, duplicates: int) -> None:
        self.service.metrics.reports.labels("new").inc(new)
        self.service.metrics.reports.labels("duplicate").inc(duplicates)


def _guarded(act: Callable[[], T]) -> T:
    try:
        return act()
    except Full:
        raise Later("full") from None
    except Unavailable as error:
        raise _meant(error.__cause__) from error
    except SQLAlchemyError as error:
        raise _meant(error) from error


def _meant(cause: BaseException | None) -> LedgerError:
    """Return what a failure of the database means: it is away, or what it was given is at fault."""
    if isinstance(cause, DataError | ValueError | ArithmeticError | TypeError) and not isinstance(
        cause, IntegrityError
    ):
        return Unfit(type(cause).__name__)
    return Later("database")
