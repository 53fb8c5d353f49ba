"""The process that is measured: a hydrator, requests that leave at their time, and a timer that does nothing.

``python -m bench.sick.load REPOSITORY DEADLINE_S RATE SECONDS`` (with ``tools/bench`` on the path) connects, says
``begins TIME`` and in the end writes one JSON object. All times are of the monotonic clock, which all processes of a
machine share. A request is late from the moment at which it should have left, whatever the event loop was doing then;
the timer, due as often, says how late the event loop itself was.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from feast import FeatureStore
from prometheus_client import CollectorRegistry

from bench.sick.features import DEFAULT, USERS, contract_of, values_of
from fairlead.clock import SystemClock
from fairlead.policy import FeatureState, Hydration
from fairlead_server.errors import RequestError
from fairlead_server.hydrate.choice import back_end_of
from fairlead_server.hydrate.hydrator import Hydrated, Hydrator, StoreAccess
from fairlead_server.hydrate.plan import compile_plan
from fairlead_server.hydrate.policy import LastGood
from fairlead_server.hydrate.source import source_of
from fairlead_server.hydrate.thread import WorkerThread
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.load import freeze_memory

_WARM_S = 1.0
_SAME_MS = 1e-3
_WAIT_S = 5.0
"""After the last request, for answers that may still come."""


class Answer(IntEnum):
    """What became of a request."""

    NONE = 0
    """Nothing."""
    GOOD = 1
    """All its values."""
    DEGRADED = 2
    """Defaults where the store failed, and marked so."""
    WRONG = 3
    """Not the user's values, or none although the store has them and did not fail."""
    UNMARKED = 4
    """Defaults that nothing tells from values."""
    ERROR = 5
    """An error, although no policy asks for one."""


def main(arguments: list[str]) -> int:
    """Measure, and print what was seen."""
    folder, deadline_s, rate, lasts_s = Path(arguments[0]), *(float(one) for one in arguments[1:])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen = runner.run(_run(folder, deadline_s, rate, lasts_s))
    print(json.dumps(seen))
    return 0


async def _run(folder: Path, deadline_s: float, rate: float, lasts_s: float) -> dict[str, Any]:
    store = FeatureStore(repo_path=str(folder))
    contract = contract_of(store)
    plan = compile_plan(contract, Hydration(deadline_s=deadline_s))
    source = source_of(store, contract)
    metrics = ServerMetrics(CollectorRegistry()).of(model="sick", variant="sick")
    access = StoreAccess(back_end_of(store, plan, source, WorkerThread("sick"), deadline_s), source.functions)
    hydrator = Hydrator(plan, access, SystemClock(), LastGood(0), metrics, deadline_s=deadline_s)
    if not await hydrator.answers():
        raise SystemExit("the store does not answer")
    warm = Load(hydrator, rate, round(rate * _WARM_S))
    await warm.run()
    freeze_memory()
    load = Load(hydrator, rate, round(rate * lasts_s))
    timer = Ticks(rate, round(rate * lasts_s))
    print("begins", time.monotonic(), flush=True)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    await asyncio.gather(load.run(), timer.run())
    share = (time.process_time() - began_cpu_s) / (time.perf_counter() - began_s)
    await hydrator.close()
    requests = list(zip(load.due_s, load.took_s, load.answers, strict=True))
    return {"requests": requests, "timer": timer.late_s, "cpu_share": share}


class Load:
    """Requests at a fixed rate."""

    def __init__(self, hydrator: Hydrator, rate: float, amount: int) -> None:
        """Prepare them."""
        self._hydrator = hydrator
        self._amount = amount
        self._inputs = [{"user": np.array([user], np.int64)} for user in range(USERS)]
        self._expected = [values_of(user) for user in range(USERS)]
        self._loop = asyncio.get_running_loop()
        begin_s = _soon()
        self.due_s = [begin_s + i / rate for i in range(amount)]
        self.took_s = [-1.0] * amount
        self.answers = [int(Answer.NONE)] * amount
        self._next = 0
        self._open = amount
        self._done = asyncio.Event()

    async def run(self) -> None:
        """Send all, and wait for their answers for a while."""
        self._loop.call_at(_on_time(self.due_s[0]), self._send)
        try:
            async with asyncio.timeout_at(self.due_s[-1] + _WAIT_S):
                await self._done.wait()
        except TimeoutError:
            pass

    def _send(self) -> None:
        """Send what is due."""
        now_s = time.monotonic()
        while self._next < self._amount and self.due_s[self._next] <= now_s + _SAME_MS / 1000:
            i = self._next
            self._next += 1
            self._hydrator.submit(self._inputs[i % USERS], 1, self._heard(i))
        if self._next < self._amount:
            self._loop.call_at(_on_time(self.due_s[self._next]), self._send)

    def _heard(self, i: int) -> Callable[[Hydrated | RequestError], None]:
        def heard(outcome: Hydrated | RequestError) -> None:
            self.took_s[i] = time.monotonic() - self.due_s[i]
            self.answers[i] = self._judged(i, outcome)
            self._open -= 1
            if not self._open:
                self._done.set()

        return heard

    def _judged(self, i: int, outcome: Hydrated | RequestError) -> int:
        if isinstance(outcome, RequestError):
            return Answer.ERROR
        expected = self._expected[i % USERS]
        if any(column.shape != (1,) for column in outcome.columns.values()):
            return Answer.WRONG
        values = [column.item() for column in outcome.columns.values()]
        if values == expected and not outcome.degraded:
            return Answer.GOOD
        states = [of_rows[0] for of_rows in outcome.states.values()]
        for value, right, state in zip(values, expected, states, strict=True):
            if state is FeatureState.PRESENT and value == DEFAULT:
                return Answer.UNMARKED
            if (state, value) not in ((FeatureState.PRESENT, right), (FeatureState.STORE_ERROR, DEFAULT)):
                return Answer.WRONG
        return Answer.DEGRADED if outcome.degraded == (FeatureState.STORE_ERROR in states) else Answer.UNMARKED


class Ticks:
    """A timer as often as requests."""

    def __init__(self, rate: float, amount: int) -> None:
        """Prepare it."""
        self._loop = asyncio.get_running_loop()
        begin_s = _soon()
        self._due_s = [begin_s + i / rate for i in range(amount)]
        self.late_s: list[float] = []
        self._done = asyncio.Event()

    async def run(self) -> None:
        """Tick to the end."""
        self._loop.call_at(_on_time(self._due_s[0]), self._tick)
        await self._done.wait()

    def _tick(self) -> None:
        now_s = time.monotonic()
        while len(self.late_s) < len(self._due_s) and self._due_s[len(self.late_s)] <= now_s + _SAME_MS / 1000:
            self.late_s.append(now_s - self._due_s[len(self.late_s)])
        if len(self.late_s) == len(self._due_s):
            self._done.set()
        else:
            self._loop.call_at(_on_time(self._due_s[len(self.late_s)]), self._tick)


def _soon() -> float:
    """Return a moment of whole milliseconds, which is what uvloop's timers know."""
    return math.ceil(1000 * time.monotonic() + 100) / 1000


def _on_time(due_s: float) -> float:
    """Return when a timer must be set so that it is not early."""
    return math.ceil(1000 * due_s - _SAME_MS) / 1000


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
