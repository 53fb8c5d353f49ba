"""Threads for long runs, and who may wait for one.

A run that takes longer than the event loop can bear goes to one of a few threads of lower priority; ONNX Runtime
lets go of the interpreter meanwhile. Each model has a queue of its own, and a free thread takes from the queue whose
model has had the least of the threads' time, so that no model's queue holds up another's.

A request is let in only if it is expected to be answered in time. Expected is that the threads finish what they are
at, then serve the queues in turn, each by as much as is ahead of the request in its own, and then run the request:

    wait = (what is left of the runs going on + sum over queues of min(queued there, queued here + own)) / threads

A request that nothing is ahead of is always let in: to refuse it would keep estimates from ever being corrected.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from fairlead_server.errors import (
    ClientLeft,
    DeadlinePassed,
    InferenceFailed,
    NotReady,
    Overloaded,
    RequestError,
)
from fairlead_server.metrics import ModelMetrics, Stage, Unrun
from fairlead_server.predict.cost import RunCost

MOST_WAITING: Final = 1024
"""Requests that may wait in one model's queue."""
MOST_BYTES: Final = 256 * 1024**2
"""Size of what may wait in all queues."""
_NICENESS: Final = 10
"""Added to the threads': on a full core the event loop's thread gets nine times as much, and at once."""
_MOST_LONGER: Final = 2.5
"""A run may be expected to take so many times as long as its first request alone, for others to join it: enough to
try twice the rows and so to find out whether they cost anything."""
_GAIN_WEIGHT: Final = 0.2
_LEAST_RETRY_S: Final = 0.05
_LEAST_RUN_S: Final = 1e-6


class Work(Protocol):
    """One request's rows, waiting to be run."""

    units: int
    """How large it is; see ``RunCost``."""
    deadline_s: float | None
    """When nobody wants the answer any more, by the event loop's time."""
    gone: Callable[[], bool] | None
    """Tells whether the client has left; None if nobody can tell."""

    @property
    def size_bytes(self) -> int:
        """Size of its rows."""


class Runner(Protocol):
    """Whose work it is."""

    def outcomes(self, works: Sequence[Any]) -> Sequence[Any]:
        """Run works together, in whatever thread this is called; an outcome for each, in their order."""

    def tell(self, work: Any, outcome: Any) -> None:
        """Give a work its outcome, on the event loop's thread."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    work: Work
    runner: Runner
    alone_s: float
    """What it is expected to take alone."""
    since_s: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """What long runs may take."""

    threads: int = 1
    long_run_s: float = 0.002
    """Runs that are expected to take longer leave the event loop's thread."""
    queue_deadline_s: float = 5.0
    """Longest expected wait of a request whose client names no deadline."""


class LongRuns:
    """The threads of a process, and the queues they serve."""

    def __init__(self, bounds: Bounds) -> None:
        """Make it; threads start when they are first needed."""
        self.bounds = bounds
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._started = 0
        self._queues: dict[RunQueue, None] = {}
        """Those in which somebody waits."""
        self._running: dict[object, float] = {}
        """When runs going on are expected to end."""
        self.waiting_bytes = 0
        self._spent_s = 0.0
        """What a model that comes anew is taken to have had of the threads."""

    def close(self) -> None:
        """Let the threads end after what they are doing; does not wait."""
        for _ in range(self._started):
            self._calls.put(None)
        self._started = 0

    def wait_s(self, queue_: RunQueue, own_s: float, now_s: float) -> float:
        """Return how long a request that takes ``own_s`` would wait in a queue; 0 if nothing is ahead of it."""
        going_on = [max(0.0, end_s - now_s) for end_s in self._running.values()]
        if not self._queues and len(going_on) < self.bounds.threads:
            return 0.0
        turn_s = queue_.backlog_s + own_s
        ahead_s = sum(min(other.backlog_s, turn_s) for other in self._queues)
        return (sum(going_on) + ahead_s) / self.bounds.threads

    def serve(self, queue_: RunQueue) -> None:
        """Serve a queue in which somebody waits now."""
        if queue_ not in self._queues:
            # Who did not wait has not saved up time.
            queue_.spent_s = max(queue_.spent_s, self._spent_s)
            self._queues[queue_] = None
        self._dispatch()

    def forget(self, queue_: RunQueue) -> None:
        """Serve a queue no more."""
        self._queues.pop(queue_, None)

    def _dispatch(self) -> None:
        while self._queues and len(self._running) < self.bounds.threads:
            chosen = min(self._queues, key=lambda each: each.spent_s)
            runner = chosen.waiting[0].runner
            works = chosen.take()
            if not chosen.waiting:
                self.forget(chosen)
            if works:
                self._start(chosen, runner, works)

    def _start(self, queue_: RunQueue, runner: Runner, works: Sequence[Work]) -> None:
        if self._started < self.bounds.threads:
            self._started += 1
            threading.Thread(target=self._work, name=f"long-runs-{self._started}", daemon=True).start()
        loop = asyncio.get_running_loop()
        run = object()
        expected_s = queue_.expected_s(sum(work.units for work in works))
        self._running[run] = loop.time() + expected_s
        self._spent_s = queue_.spent_s
        queue_.spent_s += expected_s
        queue_.running += 1

        def call() -> None:
            start_s, start_cpu_s = time.perf_counter(), time.thread_time()
            outcomes = _outcomes(runner, works)
            took_s, cpu_s = time.perf_counter() - start_s, time.thread_time() - start_cpu_s
            with contextlib.suppress(RuntimeError):  # the loop has ended; nobody waits any more
                loop.call_soon_threadsafe(finish, outcomes, took_s, cpu_s)

        def finish(outcomes: Sequence[Any], took_s: float, cpu_s: float) -> None:
            del self._running[run]
            queue_.spent_s += took_s - expected_s
            if not any(isinstance(outcome, RequestError) for outcome in outcomes):
                queue_.learn(works, took_s, cpu_s)
            self._dispatch()  # the thread has work again before answers are written
            queue_.running -= 1
            for work, outcome in zip(works, outcomes, strict=True):
                runner.tell(work, outcome)

        self._calls.put(call)

    def _work(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while (call := self._calls.get()) is not None:
            call()
            del call  # else a model that is unloaded meanwhile would stay in memory


class RunQueue:
    """One model's requests that wait for a long run."""

    def __init__(self, runs: LongRuns, cost: RunCost, metrics: ModelMetrics, *, joint: bool) -> None:
        """Make it, with nobody waiting.

        Args:
            runs: Threads that serve it.
            cost: What runs are expected to take.
            metrics: Where waits and refusals are counted.
            joint: Whether several works may share one run.
        """
        self._runs = runs
        self._cost = cost
        self._metrics = metrics
        self._queue = metrics.durations(Stage.QUEUE)
        self._infer = metrics.durations(Stage.INFER)
        self._joint = joint
        self._gain = 1.0
        """Time that runs take by the clock, over what their works are expected to take one by one."""
        self._expected_s = 0.0
        self.waiting: deque[_Waiting] = deque()
        self.running = 0
        """Runs going on."""
        self.spent_s = 0.0
        """What this model has had of the threads' time."""

    @property
    def backlog_s(self) -> float:
        """How long a thread is expected to need for all who wait."""
        return self._gain * self._expected_s

    def expected_s(self, units: int) -> float:
        """Return how long a run of size ``units`` is expected to take by the clock."""
        return max(self._gain, 1.0) * self._cost.expected_s(units)

    def submit(self, work: Work, runner: Runner, now_s: float) -> None:
        """Have a work run in a thread, when it is its turn.

        Args:
            work: What is to be run.
            runner: Runs and tells it; the same for all works of a model.
            now_s: The event loop's time.

        Raises:
            Overloaded: It would not be answered in time, or too many wait already.
        """
        alone_s = self._cost.expected_s(work.units)
        self._admit(work, alone_s, now_s)
        self.waiting.append(_Waiting(work, runner, alone_s, now_s, work.size_bytes))
        self._expected_s += alone_s
        self._runs.waiting_bytes += work.size_bytes
        self._runs.serve(self)

    def _admit(self, work: Work, alone_s: float, now_s: float) -> None:
        own_s = self._gain * alone_s
        wait_s = self._runs.wait_s(self, own_s, now_s)
        if not wait_s:
            return
        if len(self.waiting) >= MOST_WAITING or self._runs.waiting_bytes + work.size_bytes > MOST_BYTES:
            self._metrics.count_unrun(Unrun.FULL)
            raise Overloaded("too many requests wait for the model already; try again later", wait_s)
        if work.deadline_s is None:
            late_s = wait_s - self._runs.bounds.queue_deadline_s
        else:
            late_s = now_s + wait_s + self.expected_s(work.units) - work.deadline_s
        if late_s > 0:
            self._metrics.count_unrun(Unrun.OVERLOADED)
            raise Overloaded(
                f"the request would wait {wait_s:.3f} s for the model, longer than it may; try again later",
                max(late_s, _LEAST_RETRY_S),
            )

    def take(self) -> list[Work]:
        """Return works that share the next run; those that nobody waits for any more are told so, and not run."""
        now_s = asyncio.get_running_loop().time()
        taken: list[Work] = []
        units, most_s = 0, 0.0
        while self.waiting:
            first = self.waiting[0]
            refusal = _refusal(first.work, now_s)
            if refusal is not None:
                self._drop()
                self._metrics.count_unrun(Unrun.GONE if isinstance(refusal, ClientLeft) else Unrun.LATE)
                first.runner.tell(first.work, refusal)
                continue
            units += first.work.units
            if taken and not (self._joint and self._cost.expected_s(units) <= most_s):
                break
            self._drop()
            self._queue.add(now_s - first.since_s)
            most_s = most_s or _MOST_LONGER * first.alone_s
            taken.append(first.work)
        return taken

    def _drop(self) -> None:
        first = self.waiting.popleft()
        self._expected_s = self._expected_s - first.alone_s if self.waiting else 0.0
        self._runs.waiting_bytes -= first.size_bytes

    def learn(self, works: Sequence[Work], took_s: float, cpu_s: float) -> None:
        """Take note of a run.

        Args:
            works: Who shared it.
            took_s: Its time by the clock.
            cpu_s: What it had of a processor: what it would have taken undisturbed.
        """
        alone_s = sum(self._cost.expected_s(work.units) for work in works)
        if alone_s:
            self._gain += _GAIN_WEIGHT * (took_s / alone_s - self._gain)
        self._cost.add(sum(work.units for work in works), max(cpu_s, _LEAST_RUN_S))
        self._infer.add(took_s, len(works))

    def close(self) -> None:
        """Refuse all who wait: the model is going away."""
        self._runs.forget(self)
        while self.waiting:
            first = self.waiting[0]
            self._drop()
            first.runner.tell(first.work, NotReady("not ready: the model was unloaded"))


def _outcomes(runner: Runner, works: Sequence[Work]) -> Sequence[Any]:
    try:
        return runner.outcomes(works)
    except Exception as error:  # noqa: BLE001 -- a thread's top: whoever waits must be told
        return [InferenceFailed(f"the model failed with {type(error).__name__}")] * len(works)


def _refusal(work: Work, now_s: float) -> RequestError | None:
    """Return why a work need not be run any more."""
    if work.gone is not None and work.gone():
        return ClientLeft("the client has left")
    if work.deadline_s is not None and work.deadline_s < now_s:
        return DeadlinePassed("the request's deadline passed while it waited for the model; allow more time")
    return None


def usable_cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many processors this process may keep busy, by its affinity and its control group's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no such group, or "max": no quota
        return cores
