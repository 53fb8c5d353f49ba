"""Which key is reconciled when: coalesced, one run per key at a time, backed off each for itself.

:class:`Schedule` is the whole logic, without tasks and without a clock of its own; :class:`ReconcileQueue` runs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from fairlead_operator import logs
from fairlead_operator.errors import OperatorError
from fairlead_operator.runtime.keys import Controller, ObjectKey

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses after failures: doubled each time, jittered, capped."""

    first_s: float = 0.5
    longest_s: float = 300.0

    def pause_s(self, failures: int, randomness: random.Random) -> float:
        """Return the pause after the ``failures``-th failure in a row, at least half of the full one."""
        full_s = min(self.first_s * 2.0 ** min(failures - 1, 64), self.longest_s)
        return full_s * randomness.uniform(0.5, 1.0)


class Result(StrEnum):
    """How a run ended."""

    SUCCESS = "success"
    AGAIN = "again"
    """Well, and it is to be run again after a while."""
    RETRY = "retry"
    """It failed; a later run may not."""
    REFUSED = "refused"
    """It failed for good, until something changes."""
    BUG = "bug"
    """It raised what no code of ours should raise."""


@dataclass(frozen=True, slots=True)
class Run:
    """One reconcile that has ended."""

    key: ObjectKey
    result: Result
    waited_s: float
    """From when it was due to when a worker took it."""
    duration_s: float


@dataclass(slots=True)
class _Entry:
    """What is known of one key. A key without an entry is at rest."""

    running_since: float | None = None
    ready_since: float | None = None
    """Waits for a worker; while it runs, it is to be run again."""
    due: float | None = None
    """Becomes ready at this time."""
    held_until: float = 0.0
    """It has failed; not even an event makes it ready before this time."""
    failures: int = 0


@dataclass(slots=True)
class Schedule:
    """Keys that wait, run and rest. Times are seconds of any clock that never goes back.

    Keys that are ready are taken in the order in which they became so. There is at most one entry per key, and at most
    ``capacity`` keys; what comes beyond is dropped and counted, and the next resync brings it back.
    """

    capacity: int = 100_000
    hold_s: float = 5.0
    """How long at most a key that has failed waits in spite of events: its own writes may be what causes them."""
    dropped: int = 0
    _entries: dict[ObjectKey, _Entry] = field(default_factory=dict)
    _ready: dict[ObjectKey, None] = field(default_factory=dict)
    _delayed: list[tuple[float, int, ObjectKey]] = field(default_factory=list)
    """A heap; an item whose time is not its entry's ``due`` any more is void."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def add(self, key: ObjectKey, now: float) -> bool:
        """Have ``key`` run as soon as a worker is free, after its present run if it is running.

        Returns:
            Whether it was taken in.
        """
        entry = self._entry(key)
        if entry is None:
            return False
        if entry.running_since is None and now < entry.held_until:
            return self.add_at(key, entry.held_until)
        entry.due = None
        if entry.ready_since is None:
            entry.ready_since = now
        if entry.running_since is None:
            self._ready.setdefault(key)
        return True

    def add_at(self, key: ObjectKey, due: float) -> bool:
        """Have ``key`` run at ``due``, unless it is to be run sooner.

        Returns:
            Whether it was taken in.
        """
        entry = self._entry(key)
        if entry is None:
            return False
        if entry.ready_since is None and (entry.due is None or due < entry.due):
            entry.due = due
            heapq.heappush(self._delayed, (due, next(self._numbers), key))
            self._sift()
        return True

    def take(self, now: float) -> tuple[ObjectKey, float] | None:
        """Return the next key to run and how long it has waited, seconds; None if none is ready."""
        self._ripen(now)
        key = next(iter(self._ready), None)
        if key is None:
            return None
        del self._ready[key]
        entry = self._entries[key]
        waited_s = now - (now if entry.ready_since is None else entry.ready_since)
        entry.ready_since, entry.running_since = None, now
        return key, waited_s

    def succeed(self, key: ObjectKey, now: float, again_after_s: float | None) -> None:
        """Note that the run of ``key`` ended well."""
        entry = self._entries[key]
        entry.failures, entry.held_until = 0, 0.0
        self._end(key, now, None if again_after_s is None else now + again_after_s)

    def fail(self, key: ObjectKey, now: float, pause_s: Callable[[int], float]) -> None:
        """Note that the run of ``key`` failed; ``pause_s`` says how long to wait after so many failures in a row."""
        entry = self._entries[key]
        entry.failures += 1
        wait_s = pause_s(entry.failures)
        entry.held_until = now + min(wait_s, self.hold_s)
        again_at = now + wait_s if entry.ready_since is None else entry.held_until
        entry.ready_since = None
        self._end(key, now, again_at)

    def abandon(self, key: ObjectKey, now: float) -> None:
        """Note that the run of ``key`` was stopped on the way; it is run again."""
        self.add(key, now)
        self._end(key, now, None)

    def next_due(self) -> float | None:
        """Return when the next delayed key becomes ready; None if there is none."""
        while self._delayed:
            due, _, key = self._delayed[0]
            if self._is_valid(due, key):
                return due
            heapq.heappop(self._delayed)
        return None

    @property
    def depth(self) -> int:
        """How many keys wait for a worker."""
        return len(self._ready)

    @property
    def delayed(self) -> int:
        """How many keys wait for their time."""
        return sum(entry.due is not None for entry in self._entries.values())

    def oldest_wait_s(self, now: float) -> float:
        """Return how long the longest waiting key has waited for a worker; 0 if none waits."""
        waiting = next(iter(self._ready), None)
        since = self._entries[waiting].ready_since if waiting else None
        return 0.0 if since is None else now - since

    def longest_run_s(self, now: float) -> float:
        """Return how long the longest of the present runs has been going on; 0 if there is none."""
        since = [e.running_since for e in self._entries.values() if e.running_since is not None]
        return now - min(since, default=now)

    def _entry(self, key: ObjectKey) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None and len(self._entries) >= self.capacity:
            self.dropped += 1
            return None
        return entry or self._entries.setdefault(key, _Entry())

    def _end(self, key: ObjectKey, now: float, again_at: float | None) -> None:
        entry = self._entries[key]
        entry.running_since = None
        if entry.ready_since is not None:
            # It became dirty while it ran; its time in the queue starts now.
            entry.ready_since = now
            self._ready.setdefault(key)
        elif again_at is not None:
            self.add_at(key, again_at)
        elif entry.due is None:
            del self._entries[key]

    def _ripen(self, now: float) -> None:
        while (due := self.next_due()) is not None and due <= now:
            _, _, key = heapq.heappop(self._delayed)
            entry = self._entries[key]
            entry.due, entry.ready_since = None, due
            if entry.running_since is None:
                self._ready.setdefault(key)

    def _is_valid(self, due: float, key: ObjectKey) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.due == due

    def _sift(self) -> None:
        """Drop void items once they outnumber the valid ones."""
        if len(self._delayed) > 2 * len(self._entries) + 64:
            valid = {(due, key): number for due, number, key in self._delayed if self._is_valid(due, key)}
            self._delayed = [(due, number, key) for (due, key), number in valid.items()]
            heapq.heapify(self._delayed)


RunObserver: TypeAlias = Callable[[Run], None]


def _ignore(run: Run) -> None:
    """Count nothing."""


class ReconcileQueue:
    """Runs a controller on keys, several at a time. Lives on one event loop and is called from it alone."""

    def __init__(
        self,
        controller: Controller,
        *,
        now: Callable[[], float],
        randomness: random.Random,
        workers: int = 4,
        backoff: Backoff | None = None,
        deadline_s: float = 120.0,
        observe: RunObserver = _ignore,
        capacity: int = 100_000,
    ) -> None:
        """Make a queue that takes keys in at once and runs them once :meth:`run` does.

        Args:
            controller: What runs.
            now: A clock that never goes back, seconds.
            randomness: Spreads pauses.
            workers: How many keys run at a time.
            backoff: Pauses after failures.
            deadline_s: When a run is stopped and taken for failed.
            observe: Told of each run that has ended.
            capacity: Bound on keys.
        """
        self._controller = controller
        self._now = now
        self._random = randomness
        self._workers = workers
        self._backoff = backoff or Backoff()
        self._deadline_s = deadline_s
        self._observe = observe
        self._stopping = False
        self._wake = asyncio.Event()
        self._numbers = itertools.count(1)
        self.schedule = Schedule(capacity)

    def add(self, key: ObjectKey) -> None:
        """Have ``key`` run soon; it coalesces with what is asked for already."""
        if self.schedule.add(key, self._now()):
            self._wake.set()
        else:
            _log.warning("a key was dropped: the queue is full", extra={"key": str(key)})

    def add_after(self, key: ObjectKey, delay_s: float) -> None:
        """Have ``key`` run after ``delay_s`` seconds, unless it is to be run sooner."""
        if self.schedule.add_at(key, self._now() + delay_s):
            self._wake.set()

    def stop(self) -> None:
        """Start no more runs; :meth:`run` returns when those that go on have ended."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Run keys until stopped or cancelled; a run that is cancelled on the way is kept for the next time."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    @property
    def longest_run_s(self) -> float:
        """How long the longest of the present runs has been going on; over the deadline, a worker is stuck."""
        return self.schedule.longest_run_s(self._now())

    @property
    def deadline_s(self) -> float:
        """When a run is stopped and taken for failed."""
        return self._deadline_s

    async def _work(self) -> None:
        while not self._stopping:
            self._wake.clear()
            taken = self.schedule.take(self._now())
            if taken is None:
                await self._sleep()
            else:
                await self._run(*taken)

    async def _sleep(self) -> None:
        due = self.schedule.next_due()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due is None else max(0.0, due - self._now())):
                await self._wake.wait()

    async def _run(self, key: ObjectKey, waited_s: float) -> None:
        begun = self._now()
        try:
            with logs.bound(key=str(key), reconcile=next(self._numbers)):
                result = await self._reconcile(key)
        except BaseException:
            self.schedule.abandon(key, self._now())
            raise
        # Another worker may sleep until a time that is later than this key's next.
        self._wake.set()
        self._observe(Run(key, result, waited_s, self._now() - begun))

    async def _reconcile(self, key: ObjectKey) -> Result:
        """Run ``key`` once and schedule what follows from how it ended."""
        try:
            async with asyncio.timeout(self._deadline_s):
                again_after_s = await self._controller.reconcile(key)
        except OperatorError as error:
            return self._failed(key, error)
        except TimeoutError:
            _log.warning("a reconcile took too long and was stopped")
            return self._retry(key, Result.RETRY)
        except Exception:  # noqa: BLE001 -- a loop's top; counted as a bug
            _log.exception("a reconcile raised what it never should")
            return self._retry(key, Result.BUG)
        self.schedule.succeed(key, self._now(), again_after_s)
        return Result.SUCCESS if again_after_s is None else Result.AGAIN

    def _failed(self, key: ObjectKey, error: OperatorError) -> Result:
        fields = {"error": type(error).__name__, "detail": str(error)}
        if error.retryable:
            _log.info("a reconcile failed and is tried again", extra=fields)
            return self._retry(key, Result.RETRY)
        _log.warning("a reconcile was refused", extra=fields)
        self.schedule.fail(key, self._now(), lambda _: self._backoff.longest_s * self._random.uniform(0.5, 1.0))
        return Result.REFUSED

    def _retry(self, key: ObjectKey, result: Result) -> Result:
        self.schedule.fail(key, self._now(), lambda failures: self._backoff.pause_s(failures, self._random))
        return result
