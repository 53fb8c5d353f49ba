"""Rows of all requests that arrive in one turn of the event loop share one run of the model.

A run costs tens of microseconds before its first row; a row costs less than one. Requests that are read from their
sockets in the same turn therefore wait for the turn's end, which is no time at all when there is one of them, and
are run together. Several models take turns: each runs once, then whoever else is waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fairlead_server.errors import DeadlinePassed, InferenceFailed, RequestError
from fairlead_server.metrics import ModelMetrics, Stage
from fairlead_server.predict.session import Session

Columns = Mapping[str, NDArray[np.generic]]
"""A model's inputs or outputs by name; the first dimension counts rows."""
Done = Callable[[Columns | RequestError], None]
"""Is told what a request's rows gave, or why they gave nothing; called exactly once."""

ROWS_PER_RUN: Final = 64
"""Up to so many rows are run on the event loop's own thread, jointly or alone."""


class _Waiting:
    """One request's rows."""

    __slots__ = ("columns", "deadline_s", "done", "rows")

    def __init__(self, columns: Columns, rows: int, deadline_s: float | None, done: Done) -> None:
        self.columns = columns
        self.rows = rows
        self.deadline_s = deadline_s
        self.done = done


class Batch:
    """The requests of one model that wait for the turn's end."""

    def __init__(self, session: Session, metrics: ModelMetrics, *, joint: bool) -> None:
        """Make it, with nobody waiting.

        Args:
            session: What runs them.
            metrics: Where runs are timed.
            joint: Whether rows of several requests may share one run.
        """
        self._session = session
        self._infer = metrics.durations(Stage.INFER)
        self._joint = joint
        self._waiting: deque[_Waiting] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._apart: set[asyncio.Task[None]] = set()

    def submit(self, columns: Columns, rows: int, deadline_s: float | None, done: Done) -> None:
        """Have rows run at the end of this turn of the event loop.

        Args:
            columns: Every input of the graph by name, checked, of the graph's types.
            rows: Number of rows.
            deadline_s: Time of the event loop after which nobody wants the answer any more; None for any time.
            done: Told in a later callback of the loop.
        """
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        one = _Waiting(columns, rows, deadline_s, done)
        if rows > ROWS_PER_RUN:
            task = loop.create_task(self._run_apart(one))
            self._apart.add(task)
            task.add_done_callback(self._apart.discard)
            return
        if not self._waiting:
            loop.call_soon(self._turn)
        self._waiting.append(one)

    def _turn(self) -> None:
        """Run once; who found no room in the run waits for the next turn, in which other models run too."""
        taken = self._take()
        if self._waiting and self._loop is not None:
            self._loop.call_soon(self._turn)
        if taken:
            self._run(taken)

    def _take(self) -> list[_Waiting]:
        waiting = self._waiting
        taken: list[_Waiting] = []
        room = ROWS_PER_RUN
        while waiting and waiting[0].rows <= room:
            one = waiting.popleft()
            if self._is_late(one):
                _tell(one, _late())
                continue
            taken.append(one)
            room = room - one.rows if self._joint else 0
        return taken

    def _is_late(self, one: _Waiting) -> bool:
        return one.deadline_s is not None and self._loop is not None and one.deadline_s < self._loop.time()

    def _run(self, taken: Sequence[_Waiting]) -> None:
        if len(taken) == 1:
            self._run_alone(taken[0])
            return
        start_s = time.perf_counter()
        try:
            columns = _joined([one.columns for one in taken])
            outputs = self._session.run_now(columns, sum([one.rows for one in taken]))
        except Exception:  # noqa: BLE001 -- whoever is to blame is found by running each alone
            for one in taken:
                self._run_alone(one)
            return
        self._infer.add(time.perf_counter() - start_s, len(taken))
        stop = 0
        for one in taken:
            start, stop = stop, stop + one.rows
            _tell(one, {name: output[start:stop] for name, output in outputs.items()})

    def _run_alone(self, one: _Waiting) -> None:
        start_s = time.perf_counter()
        try:
            outputs: Columns | RequestError = self._session.run_now(one.columns, one.rows)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the request has failed, and no other
            outputs = _failure(error)
        self._infer.add(time.perf_counter() - start_s)
        _tell(one, outputs)

    async def _run_apart(self, one: _Waiting) -> None:
        """Run many rows where they do not hold up the event loop."""
        start_s = time.perf_counter()
        try:
            outputs: Columns | RequestError = await self._session.run(one.columns, one.rows)
        except Exception as error:  # noqa: BLE001 -- as above
            outputs = _failure(error)
        self._infer.add(time.perf_counter() - start_s)
        _tell(one, outputs)


def _joined(parts: Sequence[Columns]) -> Columns:
    """Return the rows of all parts, one after the other.

    Raises:
        ValueError: They differ in dimensions that they must share.
    """
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _tell(one: _Waiting, outcome: Columns | RequestError) -> None:
    """Tell one request; what fails there is logged by the event loop and keeps no other from being told."""
    try:
        one.done(outcome)
    except Exception as error:  # noqa: BLE001 -- see above
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "an answer could not be given", "exception": error})


def _failure(error: Exception) -> RequestError:
    if isinstance(error, RequestError):
        return error
    failed = InferenceFailed(f"the model failed with {type(error).__name__}")
    failed.__cause__ = error
    return failed


def _late() -> DeadlinePassed:
    return DeadlinePassed("the request's deadline passed before the model was run; allow more time, or send fewer")
