"""Rows of all requests that arrive in one turn of the event loop share one run of the model.

A run costs tens of microseconds before its first row; a row costs less than one. Requests that are read from their
sockets in the same turn therefore wait for the turn's end, which is no time at all when there is one of them, and
are run together. Several models take turns: each runs once, then whoever else is waiting. Runs that are expected to
take long go to threads; see ``executor``.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fairlead_server import logs
from fairlead_server.errors import DeadlinePassed, InferenceFailed, RequestError
from fairlead_server.metrics import ModelMetrics, Stage
from fairlead_server.predict.cost import RunCost
from fairlead_server.predict.executor import Bounds, LongRuns, RunQueue
from fairlead_server.predict.joint import Joint, Part, joined
from fairlead_server.predict.session import Session
from fairlead_server.predict.signature import ANY, TensorSpec

_LOG = logging.getLogger(__name__)

Columns = Mapping[str, NDArray[np.generic]]
"""A model's inputs or outputs by name; the first dimension counts rows."""
Done = Callable[[Columns | RequestError], None]
"""Is told what a request's rows gave, or why they gave nothing; called exactly once."""

Gone = Callable[[], bool]
"""Tells whether a request's client has left."""

ROWS_PER_RUN: Final = 64
"""Up to so many rows of several requests share a run on the event loop's own thread."""
_WARM_UP_RUNS: Final = 3


class Waiting:
    """One request's rows; whoever asks often has a class of its own, with ``done`` as a method."""

    __slots__ = ("columns", "deadline_s", "gone", "rows", "units")

    columns: Columns
    """Every input of the graph by name, checked, of the graph's types."""
    rows: int
    units: int
    """How large it is; see ``RunCost``. Set by :meth:`Batch.enqueue`."""
    deadline_s: float | None
    """Time of the event loop after which nobody wants the answer any more; None for any time."""
    gone: Gone | None
    """Tells whether the client has left; None if nobody can tell."""

    @property
    def size_bytes(self) -> int:
        """Size of its rows."""
        return sum(column.nbytes for column in self.columns.values())

    def done(self, outcome: Columns | RequestError) -> None:
        """Take what the rows gave, or why they gave nothing; called once, in a later callback of the loop."""
        raise NotImplementedError


class _Asked(Waiting):
    """One request's rows, and who is told of them."""

    __slots__ = ("_done",)

    def __init__(self, columns: Columns, rows: int, deadline_s: float | None, done: Done, *, gone: Gone | None) -> None:
        self.columns = columns
        self.rows = rows
        self.deadline_s = deadline_s
        self.gone = gone
        self._done = done

    def done(self, outcome: Columns | RequestError) -> None:
        self._done(outcome)


class Answers(Protocol):
    """Where answers of a run's requests are written."""

    def hold(self) -> None:
        """Keep what is written until :meth:`release`."""

    def release(self) -> None:
        """Write what was kept."""


class Batch:
    """The requests of one model that wait for the turn's end, or for a thread."""

    def __init__(
        self, session: Session, metrics: ModelMetrics, *, joint: bool, long_runs: LongRuns | None = None
    ) -> None:
        """Make it, with nobody waiting.

        Args:
            session: What runs them.
            metrics: Where runs are timed.
            joint: Whether rows of several requests may share one run.
            long_runs: Threads for long runs; None to run everything on the event loop's thread.
        """
        self._session = session
        self._infer = metrics.durations(Stage.INFER)
        self._joint = joint
        self._waiting: deque[Waiting] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        runs = long_runs or LongRuns(Bounds(long_run_s=math.inf))
        self.cost = RunCost(runs.bounds.long_run_s)
        """What runs are expected to take: by rows, or by elements if requests are not rows that may share a run."""
        self.answers: Answers | None = None
        """Where answers of a run's requests are written; None if it is not to be told of runs."""
        self.queue = RunQueue(runs, self.cost, metrics, joint=joint)
        """Who waits for a thread."""

    def warm_up(self) -> None:
        """Run the model a few times, so that no request pays for its first run, and what a run costs is known."""
        inputs = self._session.signature.inputs.values()
        columns = {spec.name: _nothing(spec) for spec in inputs}
        one = _Asked(columns, 1, None, lambda _: None, gone=None)
        least_s = math.inf
        for _ in range(_WARM_UP_RUNS):
            start_s = time.thread_time()
            if isinstance(self._outcome(one), RequestError):  # the graph may take no such values; requests will tell
                return
            least_s = min(least_s, time.thread_time() - start_s)
        self.cost.add(self._units(one), least_s)
        self._session.runs.forget()

    def submit(
        self, columns: Columns, rows: int, deadline_s: float | None, done: Done, gone: Gone | None = None
    ) -> None:
        """Have rows run at the end of this turn of the event loop, or in a thread if that is expected to take long.

        Args:
            columns: Every input of the graph by name, checked, of the graph's types.
            rows: Number of rows.
            deadline_s: Time of the event loop after which nobody wants the answer any more; None for any time.
            done: Told in a later callback of the loop.
            gone: Tells whether the client has left; None if nobody can tell.
        """
        self.enqueue(_Asked(columns, rows, deadline_s, done, gone=gone))

    def enqueue(self, one: Waiting) -> None:
        """Have a request's rows run; see :meth:`submit`."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        one.units = one.rows if self._joint else self._units(one)
        if one.units > self.cost.units_on_loop:
            try:
                self.queue.submit(one, self, loop.time())
            except RequestError as error:
                loop.call_soon(_tell, one, error)
            return
        if not self._waiting:
            loop.call_soon(self._turn)
        self._waiting.append(one)

    def _units(self, one: Waiting) -> int:
        """Return how large a run is; see ``RunCost``."""
        return one.rows if self._joint else sum([column.size for column in one.columns.values()])

    def _turn(self) -> None:
        """Run once; who found no room in the run waits for the next turn, in which other models run too."""
        taken = self._take()
        if self._waiting and self._loop is not None:
            self._loop.call_soon(self._turn)
        if taken:
            self._run(taken)

    def _take(self) -> list[Waiting]:
        waiting = self._waiting
        taken: list[Waiting] = []
        room = min(ROWS_PER_RUN, self.cost.units_on_loop)
        while waiting and (waiting[0].rows <= room or not taken):
            one = waiting.popleft()
            if one.deadline_s is not None and self._is_late(one):
                _tell(one, _late())
                continue
            taken.append(one)
            room = room - one.rows if self._joint else 0
        return taken

    def _is_late(self, one: Waiting) -> bool:
        return one.deadline_s is not None and self._loop is not None and one.deadline_s < self._loop.time()

    def _run(self, taken: Sequence[Waiting]) -> None:
        # By the processor's time: by the clock, whoever interrupts this process would make short models look long.
        start_s, start_cpu_s = time.perf_counter(), time.thread_time()
        outcomes = self.outcomes(taken)
        cpu_s = time.thread_time() - start_cpu_s
        self._infer.add(time.perf_counter() - start_s, len(taken))
        if not isinstance(outcomes[0], RequestError):  # what fails says nothing of what a run costs
            self.cost.add(taken[0].units if len(taken) == 1 else sum([one.rows for one in taken]), cpu_s)
        if self.answers is not None:
            self.answers.hold()
        for one, outcome in zip(taken, outcomes, strict=True):
            try:
                one.done(outcome)
            except Exception as error:  # noqa: BLE001 -- as in _tell(), without its call for each request
                _report(error)
        if self.answers is not None:
            self.answers.release()

    def outcomes(self, works: Sequence[Waiting]) -> Sequence[Columns | RequestError]:
        """Run requests together, and each alone if that fails: whoever is to blame is found so. In any thread."""
        if len(works) == 1:
            return (self._outcome(works[0]),)
        try:
            rows = sum([one.rows for one in works])
            outputs = Joint(self._session.run_now(joined([one.columns for one in works]), rows), rows)
        except Exception:  # noqa: BLE001 -- see above
            return [self._outcome(one) for one in works]
        stop = 0
        found: list[Columns] = []
        for one in works:
            start, stop = stop, stop + one.rows
            found.append(Part(outputs, start, stop))
        return found

    def _outcome(self, one: Waiting) -> Columns | RequestError:
        try:
            outputs = self._session.run_now(one.columns, one.rows)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the request has failed, and no other
            return _failure(error)
        return Part(Joint(outputs, one.rows), 0, one.rows) if self._joint else outputs

    def tell(self, work: Waiting, outcome: Columns | RequestError) -> None:
        """Give a request what its rows gave."""
        _tell(work, outcome)

    @property
    def busy(self) -> bool:
        """Whether anybody waits for a run, or is being run."""
        return bool(self._waiting or self.queue.waiting or self.queue.running)

    def close(self) -> None:
        """Refuse who waits for a thread: the model is going away."""
        self.queue.close()


def _nothing(spec: TensorSpec) -> NDArray[np.generic]:
    """Return a tensor of the smallest shape, of zeros or empty texts."""
    shape = [1 if side == ANY else side for side in spec.shape]
    return np.full(shape, "" if spec.dtype == np.object_ else 0, spec.dtype)


def _tell(one: Waiting, outcome: Columns | RequestError) -> None:
    """Tell one request; what fails there is logged by the event loop and keeps no other from being told."""
    try:
        one.done(outcome)
    except Exception as error:  # noqa: BLE001 -- see above
        _report(error)


def _report(error: Exception) -> None:
    loop = asyncio.get_running_loop()
    loop.call_exception_handler({"message": "an answer could not be given", "exception": error})


def _failure(error: Exception) -> RequestError:
    if isinstance(error, RequestError):
        return error
    # A session says itself what a model failed with: this is a fault of ours.
    _LOG.error("run failed error=%s at=%s", type(error).__name__, logs.place_of(error))
    return InferenceFailed("internal error; the server's log says more")


def _late() -> DeadlinePassed:
    return DeadlinePassed("the request's deadline passed before the model was run; allow more time, or send fewer")
