"""One run per key at a time, no lost wakeup, and a key that fails bothers no other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fairlead_operator.errors import GatewayError, ServerFailed
from fairlead_operator.runtime.keys import ObjectKey
from fairlead_operator.runtime.queue import Backoff, ReconcileQueue, Result, Run, Schedule
from support.virtual_time import VirtualLoop, now_s, run_virtually

KEYS = [ObjectKey("flights", name) for name in "abcd"]
A, B, C, D = KEYS


class ScheduleMachine(RuleBasedStateMachine):
    """Any order of events, runs and waiting, beside a model that says what may not be forgotten."""

    @initialize(capacity=st.sampled_from([4, 100]))
    def start(self, capacity: int) -> None:
        self.schedule = Schedule(capacity=capacity, hold_s=2.0)
        self.now = 100.0
        self.running: set[ObjectKey] = set()
        self.owed: dict[ObjectKey, float] = {}
        """Keys that must run, and the latest time from which they must be on offer."""

    @rule(key=st.sampled_from(KEYS))
    def add(self, key: ObjectKey) -> None:
        assert self.schedule.add(key, self.now)
        self.owe(key, self.now + 2.0)

    @rule(key=st.sampled_from(KEYS), delay_s=st.floats(0, 20))
    def add_later(self, key: ObjectKey, delay_s: float) -> None:
        assert self.schedule.add_at(key, self.now + delay_s)
        self.owe(key, self.now + delay_s)

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        taken = self.schedule.take(self.now)
        due = {key for key, latest in self.owed.items() if latest <= self.now and key not in self.running}
        if taken is None:
            assert not due, "a key that was asked for is not on offer"
            return
        key, waited_s = taken
        assert key not in self.running, "two runs of one key"
        assert waited_s >= 0
        self.running.add(key)
        self.owed.pop(key, None)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), again=st.none() | st.floats(0, 30))
    def succeed(self, data: st.DataObject, again: float | None) -> None:
        key = self.end(data)
        self.schedule.succeed(key, self.now, again)
        if again is not None:
            self.owe(key, self.now + again)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), pause_s=st.floats(0.1, 30))
    def fail(self, data: st.DataObject, pause_s: float) -> None:
        key = self.end(data)
        self.schedule.fail(key, self.now, lambda failures: pause_s * failures)
        if key in self.owed:
            self.owed[key] = max(self.owed[key], self.now + 2.0)
        else:
            self.owed[key] = self.now + 30 * 1000

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        key = self.end(data)
        self.schedule.abandon(key, self.now)
        self.owe(key, self.now + 2.0)

    @invariant()
    def is_bounded(self) -> None:
        if hasattr(self, "schedule"):
            assert len(self.schedule._entries) <= len(KEYS)
            assert len(self.schedule._delayed) <= 2 * len(KEYS) + 65

    def end(self, data: st.DataObject) -> ObjectKey:
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.running.remove(key)
        return key

    def owe(self, key: ObjectKey, latest: float) -> None:
        self.owed[key] = min(latest, self.owed.get(key, latest))


TestSchedule = ScheduleMachine.TestCase


class Counted:
    """A controller that does what it is told and notes when."""

    def __init__(self, takes_s: float = 1.0) -> None:
        self.takes_s = takes_s
        self.runs: list[tuple[ObjectKey, float]] = []
        self.running: set[ObjectKey] = set()
        self.most_at_once = 0
        self.does: dict[ObjectKey, Callable[[], float | None]] = {}

    async def reconcile(self, key: ObjectKey) -> float | None:
        assert key not in self.running
        self.running.add(key)
        self.most_at_once = max(self.most_at_once, len(self.running))
        self.runs.append((key, now_s()))
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.running.remove(key)
        return self.does.get(key, lambda: None)()

    def times(self, key: ObjectKey) -> list[float]:
        return [at for run, at in self.runs if run == key]


def queue_of(controller: Counted, loop: VirtualLoop, **options: Any) -> ReconcileQueue:
    return ReconcileQueue(controller, now=loop.time, randomness=random.Random(4), **options)  # noqa: S311 -- spreads pauses


def played(scene: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    loop = VirtualLoop()
    run_virtually(scene(loop), loop)


def raises(error: Exception) -> Callable[[], float | None]:
    def does() -> float | None:
        raise error

    return does


async def run_for(queue: ReconcileQueue, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await queue.run()
    except TimeoutError:
        pass


def test_events_of_one_key_coalesce_and_those_during_a_run_cause_one_more() -> None:
    async def scene(loop: VirtualLoop) -> None:
        controller = Counted()
        queue = queue_of(controller, loop)
        for _ in range(5):
            queue.add(A)
        for delay_s in (0.2, 0.4, 0.6):
            loop.call_later(delay_s, queue.add, A)
        await run_for(queue, 10)
        assert controller.times(A) == [1000.0, 1001.0]

    played(scene)


def test_keys_run_side_by_side_up_to_the_number_of_workers() -> None:
    async def scene(loop: VirtualLoop) -> None:
        controller = Counted()
        queue = queue_of(controller, loop, workers=4)
        keys = [ObjectKey("flights", f"m{number}") for number in range(10)]
        for key in keys:
            queue.add(key)
        await run_for(queue, 3.5)
        assert controller.most_at_once == 4
        assert [key for key, _ in controller.runs] == keys

    played(scene)


def test_a_key_that_always_fails_backs_off_to_the_cap_and_does_not_slow_others() -> None:
    async def scene(loop: VirtualLoop) -> None:
        controller = Counted(takes_s=0.1)
        controller.does[A] = raises(GatewayError("down"))
        controller.does[B] = lambda: 10.0
        runs: list[Run] = []
        queue = queue_of(controller, loop, workers=1, observe=runs.append)
        queue.add(A)
        queue.add(B)
        await run_for(queue, 7200)
        pauses = [after - before for before, after in zip(controller.times(A), controller.times(A)[1:], strict=False)]
        assert 0.25 <= pauses[0] <= 0.7
        assert all(150 <= pause <= 300.2 for pause in pauses[11:])
        assert len(controller.times(B)) > 7200 / 10.2 - 2
        assert max(run.waited_s for run in runs if run.key == B) <= 0.2

    played(scene)


def test_success_resets_the_backoff() -> None:
    async def scene(loop: VirtualLoop) -> None:
        controller = Counted(takes_s=0.0)
        outcomes = iter([GatewayError(""), GatewayError(""), GatewayError(""), None, GatewayError(""), None])

        def next_outcome() -> float | None:
            error = next(outcomes)
            if error is not None:
                raise error
            return None

        controller.does[A] = next_outcome
        queue = queue_of(controller, loop)
        queue.add(A)
        loop.call_later(100, queue.add, A)
        await run_for(queue, 200)
        assert len(controller.times(A)) == 6
        assert controller.times(A)[5] - controller.times(A)[4] <= 0.5

    played(scene)


def test_a_refusal_waits_for_the_longest_backoff_or_an_event() -> None:
    async def scene(loop: VirtualLoop) -> None:
        controller = Counted(takes_s=0.0)
        controller.does[A] = raises(ServerFailed("no such file"))
        runs: list[Run] = []
        queue = queue_of(controller, loop, observe=runs.append)
        queue.add(A)
        loop.call_later(60, queue.add, A)
        await run_for(queue, 100)
        assert controller.times(A) == [1000.0, 1060.0]
        assert {run.result for run in runs} == {Result.REFUSED}

    played(scene)


def test_a_failing_key_that_causes_its_own_events_is_no_hot_loop() -> None:
    async def scene(loop: VirtualLoop) -> None:
        controller = Counted(takes_s=0.01)
        queue = queue_of(controller, loop)

        def write_and_fail() -> float | None:
            loop.call_later(0.001, queue.add, A)
            raise GatewayError("down")

        controller.does[A] = write_and_fail
        queue.add(A)
        await run_for(queue, 300)
        assert len(controller.times(A)) < 80

    played(scene)


def test_a_bug_is_counted_and_tried_again() -> None:
    async def scene(loop: VirtualLoop) -> None:
        controller = Counted(takes_s=0.0)
        controller.does[A] = raises(KeyError("oh"))
        runs: list[Run] = []
        queue = queue_of(controller, loop, observe=runs.append)
        queue.add(A)
        await run_for(queue, 5)
        assert [run.result for run in runs][:2] == [Result.BUG, Result.BUG]

    played(scene)


def test_a_run_that_hangs_is_stopped_at_its_deadline() -> None:
    async def scene(loop: VirtualLoop) -> None:
        controller = Counted(takes_s=1e6)
        queue = queue_of(controller, loop, workers=1, deadline_s=30)
        queue.add(A)
        loop.call_later(29, lambda: queue.add(B))
        await run_for(queue, 45)
        assert controller.times(B) == [1030.0]

    played(scene)


def test_what_is_running_when_the_workers_are_cancelled_runs_again_with_the_next_ones() -> None:
    async def scene(loop: VirtualLoop) -> None:
        controller = Counted(takes_s=10)
        queue = queue_of(controller, loop)
        queue.add(A)
        await run_for(queue, 5)
        await asyncio.sleep(100)
        await run_for(queue, 20)
        assert controller.times(A) == [1000.0, 1105.0]

    played(scene)


def test_stop_ends_after_the_present_runs_and_starts_no_more() -> None:
    async def scene(loop: VirtualLoop) -> None:
        controller = Counted(takes_s=2)
        queue = queue_of(controller, loop, workers=1)
        queue.add(A)
        queue.add(B)
        loop.call_later(1, queue.stop)
        await queue.run()
        assert controller.runs == [(A, 1000.0)]
        assert loop.time() == pytest.approx(1002.0)

    played(scene)


def test_keys_beyond_the_capacity_are_dropped_and_counted() -> None:
    async def scene(loop: VirtualLoop) -> None:
        queue = queue_of(Counted(), loop, capacity=2)
        for key in KEYS:
            queue.add(key)
        assert (queue.schedule.depth, queue.schedule.dropped) == (2, 2)

    played(scene)


@given(
    st.lists(st.tuples(st.floats(0, 50), st.sampled_from(KEYS)), max_size=30),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_every_event_is_followed_by_a_run_that_begins_after_it(
    events: list[tuple[float, ObjectKey]], workers: int, randomness: random.Random
) -> None:
    async def scene(loop: VirtualLoop) -> None:
        controller = Counted(takes_s=0.3)
        for key in KEYS:
            controller.does[key] = lambda: None if randomness.random() < 0.7 else raises(GatewayError("down"))()
        queue = queue_of(controller, loop, workers=workers)
        for delay_s, key in events:
            loop.call_later(delay_s, queue.add, key)
        await run_for(queue, 2000)
        for delay_s, key in events:
            assert any(at >= 1000 + delay_s - 1e-6 for at in controller.times(key))

    played(scene)


def test_backoff_doubles_and_never_passes_its_cap() -> None:
    backoff, full = Backoff(0.5, 300), random.Random(1)  # noqa: S311 -- spreads pauses
    pauses = [backoff.pause_s(failures, full) for failures in range(1, 2000)]
    assert 0.25 <= pauses[0] <= 0.5
    assert 1.0 <= pauses[2] <= 2.0
    assert max(pauses) <= 300
    assert min(pauses[10:]) >= 150
