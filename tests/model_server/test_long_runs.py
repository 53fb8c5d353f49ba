"""Long runs leave the event loop; who would wait too long is refused at once; no model's queue holds up another's."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from fairlead_server.errors import ClientLeft, DeadlinePassed, InferenceFailed, NotReady, Overloaded, RequestError
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.batch import Batch, Columns
from fairlead_server.predict.cost import RunCost
from fairlead_server.predict.executor import MOST_BYTES, MOST_WAITING, Bounds, LongRuns, usable_cores

LONG_S = 10.0
"""What the models below are said to take, so that all they do is long; no test waits that long."""


class Gate:
    """Stands where a session is: each run waits to be let through, and is remembered."""

    def __init__(self, name: str = "", log: list[tuple[str, int]] | None = None) -> None:
        self.name = name
        self.runs: list[tuple[str, int]] = [] if log is None else log
        self.threads: list[tuple[str, int]] = []
        self.begun = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.failure: Exception | None = None

    def run_now(self, columns: Mapping[str, Any], rows: int) -> dict[str, Any]:
        self.runs.append((self.name, rows))
        tid = threading.get_native_id()
        self.threads.append((threading.current_thread().name, os.getpriority(os.PRIO_PROCESS, tid)))
        self.begun.release()
        self.let.acquire()
        if self.failure is not None:
            raise self.failure
        return {"y": columns["x"] * 2}


class Stand:
    """Models that share threads; each is taken to be long from the start."""

    def __init__(self, **bounds: Any) -> None:
        self.runs = LongRuns(Bounds(**bounds))
        self.registry = CollectorRegistry()
        self.metrics = ServerMetrics(self.registry)

    def batch(self, gate: Gate, *, joint: bool = True, run_s: float = LONG_S) -> Batch:
        batch = Batch(
            gate,  # type: ignore[arg-type]  # runs as a session does
            self.metrics.of(model=gate.name, variant=""),
            joint=joint,
            long_runs=self.runs,
        )
        batch.cost.add(1, run_s)
        return batch

    def unrun(self, reason: str, model: str = "") -> float:
        labels = {"model": model, "variant": "", "reason": reason}
        return self.registry.get_sample_value("fairlead_unrun_requests_total", labels) or 0.0


def ask(batch: Batch, *values: float, deadline_s: float | None = None, **more: Any) -> asyncio.Future[list[float]]:
    answered: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()

    def done(outcome: Columns | RequestError) -> None:
        if isinstance(outcome, RequestError):
            answered.set_exception(outcome)
        else:
            answered.set_result(outcome["y"].tolist())

    batch.submit({"x": np.array(values, np.float32)}, len(values), deadline_s, done, **more)
    return answered


async def begun(gate: Gate) -> None:
    """Wait until a run has begun."""
    await asyncio.to_thread(gate.begun.acquire)


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def test_a_long_run_is_made_by_a_thread_of_lower_priority_while_the_loop_goes_on() -> None:
    gate = Gate()
    answered = ask(Stand().batch(gate), 1, 2)
    await begun(gate)  # which the loop could not have noticed, were it held up
    assert not answered.done()
    gate.let.release()
    assert await answered == [2, 4]
    name, niceness = gate.threads[0]
    assert name.startswith("long-runs")
    assert niceness > os.getpriority(os.PRIO_PROCESS, 0)


async def test_a_model_comes_back_to_the_loop_once_its_runs_are_short() -> None:
    gate = Gate()
    batch = Stand().batch(gate, run_s=0.003)
    for _ in range(200):
        gate.let.release()
        assert await ask(batch, 1) == [2]
    assert gate.threads[0][0].startswith("long-runs")
    assert gate.threads[-1][0] == threading.current_thread().name


async def test_a_request_that_would_miss_its_deadline_is_refused_at_once_and_told_when_to_try_again() -> None:
    stand, gate = Stand(), Gate()
    batch = stand.batch(gate, joint=False)
    first = ask(batch, 1, deadline_s=now_s() + 1)  # nothing is ahead of it
    await begun(gate)
    with pytest.raises(Overloaded) as refused:
        await ask(batch, 2, deadline_s=now_s() + LONG_S)
    assert LONG_S - 1 < refused.value.retry_after_s <= LONG_S
    assert stand.unrun("overloaded") == 1
    patient = ask(batch, 3, deadline_s=now_s() + 10 * LONG_S)
    gate.let.release(2)
    assert (await first, await patient) == ([2], [6])


async def test_a_client_that_names_no_deadline_waits_so_long_and_no_longer() -> None:
    stand, gate = Stand(queue_deadline_s=2.5 * LONG_S), Gate()
    batch = stand.batch(gate, joint=False)
    let_in = [ask(batch, value) for value in range(3)]
    with pytest.raises(Overloaded):
        await ask(batch, 9)
    gate.let.release(3)
    assert await asyncio.gather(*let_in) == [[0], [2], [4]]


async def test_requests_that_wait_share_a_run_if_their_rows_may() -> None:
    stand, gate = Stand(queue_deadline_s=1e6), Gate()
    batch = stand.batch(gate)
    first = ask(batch, 1)
    await begun(gate)
    others = [ask(batch, 2), ask(batch, 3)]
    gate.let.release(2)
    assert await asyncio.gather(first, *others) == [[2], [4], [6]]
    assert gate.runs == [("", 1), ("", 2)]


async def test_who_has_left_or_given_up_is_not_run() -> None:
    stand, gate = Stand(queue_deadline_s=1e6), Gate()
    batch = stand.batch(gate, joint=False, run_s=0.003)
    first = ask(batch, 1)
    await begun(gate)
    end_s = now_s() + 0.5
    gone, late = ask(batch, 2, gone=lambda: True), ask(batch, 3, deadline_s=end_s)
    last = ask(batch, 4)
    passed = asyncio.Event()
    asyncio.get_running_loop().call_at(end_s + 0.01, passed.set)
    await passed.wait()
    gate.let.release(2)
    assert (await first, await last) == ([2], [8])
    with pytest.raises(ClientLeft):
        await gone
    with pytest.raises(DeadlinePassed):
        await late
    assert len(gate.runs) == 2
    assert stand.unrun("gone") == stand.unrun("late") == 1


async def test_one_models_queue_does_not_hold_up_anothers() -> None:
    log: list[tuple[str, int]] = []
    stand = Stand(queue_deadline_s=1e6)
    busy, quiet = Gate("busy", log), Gate("quiet", log)
    batches = stand.batch(busy, joint=False), stand.batch(quiet, joint=False)
    asked = [ask(batches[0], 1) for _ in range(5)]
    await begun(busy)
    asked.append(ask(batches[1], 1))
    for gate in (busy, quiet):
        gate.let.release(5)
    await asyncio.gather(*asked)
    assert [name for name, _ in log][:3].index("quiet") <= 2


async def test_a_model_that_waits_behind_another_is_expected_to_have_its_turn() -> None:
    log: list[tuple[str, int]] = []
    stand = Stand(queue_deadline_s=2.5 * LONG_S)
    busy, quiet = Gate("busy", log), Gate("quiet", log)
    batches = stand.batch(busy, joint=False), stand.batch(quiet, joint=False)
    asked = [ask(batches[0], 1) for _ in range(3)]
    with pytest.raises(Overloaded):
        await ask(batches[0], 1)
    asked.append(ask(batches[1], 1))  # not all that waits for the other is ahead of it
    for gate in (busy, quiet):
        gate.let.release(4)
    await asyncio.gather(*asked)


async def test_a_queue_is_bounded_by_number() -> None:
    stand, gate = Stand(queue_deadline_s=1e9), Gate()
    batch = stand.batch(gate, joint=False)
    asked = [ask(batch, 1) for _ in range(MOST_WAITING + 1)]  # one of them is being run
    with pytest.raises(Overloaded):
        await ask(batch, 1)
    assert stand.unrun("full") == 1
    gate.let.release(len(asked))
    await asyncio.gather(*asked)


async def test_queues_are_bounded_by_size() -> None:
    stand, gate = Stand(queue_deadline_s=1e9), Gate()
    batch = stand.batch(gate, joint=False)
    running = ask(batch, 1)
    huge = np.broadcast_to(np.float32(0), (MOST_BYTES // 8 + 1,))  # takes no memory, and counts all the same
    outcomes: list[Any] = []
    for _ in range(2):
        batch.submit({"x": huge}, len(huge), None, outcomes.append)
    await asyncio.sleep(0)
    assert [type(outcome) for outcome in outcomes] == [Overloaded]
    batch.close()
    gate.let.release()
    assert await running == [2]


async def test_a_model_that_fails_fails_each_of_its_requests_and_the_thread_goes_on() -> None:
    stand, gate = Stand(queue_deadline_s=1e6), Gate()
    batch = stand.batch(gate)
    gate.failure = ValueError("secret")
    gate.let.release()
    with pytest.raises(InferenceFailed, match="internal error"):
        await ask(batch, 1)
    gate.failure = None
    gate.let.release()
    assert await ask(batch, 1) == [2]


async def test_who_waits_for_a_model_that_is_closed_is_told_so() -> None:
    gate = Gate()
    batch = Stand(queue_deadline_s=1e6).batch(gate, joint=False)
    running, waiting = ask(batch, 1), ask(batch, 2)
    await begun(gate)
    batch.close()
    with pytest.raises(NotReady):
        await waiting
    gate.let.release()
    assert await running == [2]
    assert not batch.busy


def test_a_cost_is_learnt_by_size() -> None:
    cost = RunCost(0.002)
    cost.add(1, 30e-6)
    assert cost.expected_s(1) == 30e-6
    assert cost.expected_s(100) == pytest.approx(30e-6 * 64)
    assert 63 <= cost.units_on_loop < 128
    cost.add(1000, 60e-6)  # rows cost next to nothing
    assert cost.units_on_loop > 10_000


def test_a_hiccup_is_no_long_model_and_three_long_runs_are_one() -> None:
    cost = RunCost(0.002)
    for _ in range(10):
        cost.add(1, 50e-6)
    cost.add(1, 0.2)
    assert cost.units_on_loop >= 1
    cost.add(1, 0.2)
    cost.add(1, 0.2)
    assert cost.units_on_loop == 0


@pytest.mark.parametrize(("text", "cores"), [("150000 100000", 1), ("max 100000", None), ("50000 100000", 1)])
def test_cores_are_those_of_the_control_group(tmp_path: Path, text: str, cores: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert usable_cores(tmp_path) == (cores or len(os.sched_getaffinity(0)))
