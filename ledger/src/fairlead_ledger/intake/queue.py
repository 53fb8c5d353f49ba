"""The queue before the database: one thread writes what many requests bring, together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any, TypeVar

from fairlead_ledger.errors import Full, LedgerError, Unavailable

_LOG = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
Write = Callable[[Sequence[Any]], Sequence[Any]]
"""Writes what several requests brought in one transaction, and returns the answer to each."""


@dataclass(slots=True)
class _Waiting:
    write: Write
    brought: Any
    weight: int
    answer: Future[Any] = field(default_factory=Future)


class Queue:
    """Bounded by weight; what waits for the same writing is written at once."""

    def __init__(self, *, most: int, most_together: int, timed: Callable[[float], None] | None = None) -> None:
        """Begin empty; :meth:`start` starts the thread.

        Args:
            most: Largest weight that waits: outcomes, or entries of reports.
            most_together: Largest weight of a transaction, but for a single request that is heavier.
            timed: Told the seconds that each transaction took; None for nobody.
        """
        self._most = most
        self._most_together = most_together
        self._timed = timed or _unheard
        self._waiting: deque[_Waiting] = deque()
        self._weight = 0
        self._change = Condition()
        self._is_closed = False
        self._thread = Thread(target=self._run, name="ledger-writer", daemon=True)

    @property
    def weight(self) -> int:
        """What waits."""
        return self._weight

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    async def put(self, write: Callable[[Sequence[T]], Sequence[R]], brought: T, weight: int) -> R:
        """Have something written and return the answer to it; it is then in the database.

        Raises:
            Full: Too much waits already.
            Unavailable: The database does not take it now; it may have been written all the same.
        """
        return await asyncio.wrap_future(self.submit(write, brought, weight))

    def submit(self, write: Callable[[Sequence[T]], Sequence[R]], brought: T, weight: int) -> Future[R]:
        """Have something written; the future has what :meth:`put` returns or raises, once it is in the database.

        Raises:
            Full: Too much waits already.
            Unavailable: The ledger is stopping.
        """
        waiting = _Waiting(write, brought, weight)
        with self._change:
            if self._is_closed:
                raise Unavailable("the ledger is stopping")
            if self._waiting and self._weight + weight > self._most:
                raise Full(f"{self._weight} entries wait to be written; send it again")
            self._waiting.append(waiting)
            self._weight += weight
            self._change.notify()
        return waiting.answer

    def close(self, timeout_s: float) -> bool:
        """Write what waits and take no more; return whether all of it was written in time."""
        with self._change:
            self._is_closed = True
            self._change.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while together := self._next():
            began_s = time.perf_counter()
            try:
                answers = together[0].write([one.brought for one in together])
            except Exception as error:  # noqa: BLE001 -- the loop's top: whatever it is, those who wait are told
                _LOG.warning("not written error=%s", type(error).__name__)
                self._tell(together, [_told(error)] * len(together))
            else:
                self._tell(together, answers)
            self._timed(time.perf_counter() - began_s)

    def _next(self) -> list[_Waiting]:
        """Wait for the next ones to be written at once; none after the end."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._is_closed)
            together: list[_Waiting] = []
            weight = 0
            while self._waiting and (not together or self._fits(together[0], weight)):
                together.append(self._waiting.popleft())
                weight += together[-1].weight
            return together

    def _fits(self, first: _Waiting, weight: int) -> bool:
        following = self._waiting[0]
        return following.write == first.write and weight + following.weight <= self._most_together

    def _tell(self, together: Sequence[_Waiting], answers: Sequence[Any]) -> None:
        with self._change:
            self._weight -= sum(one.weight for one in together)
        for one, answer in zip(together, answers, strict=True):
            if not one.answer.set_running_or_notify_cancel():
                continue  # whoever waited has gone
            if isinstance(answer, Exception):
                one.answer.set_exception(answer)
            else:
                one.answer.set_result(answer)


def _told(error: Exception) -> Exception:
    if isinstance(error, LedgerError):
        return error
    told = Unavailable("the database does not take it now")
    told.__cause__ = error
    return told


def _unheard(_: float) -> None:
    """Let nobody know."""
