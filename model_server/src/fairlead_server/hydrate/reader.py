"""Reads an online store for requests that wait: together, within a deadline, and not at all while it is sick.

Requests of one turn of the event loop share a read, and so do those that arrive while the store is busy. What a
store is, and how it is asked, is its back end's part. A store that fails is left alone by a breaker, which tries it
by itself, so that a dead store costs a request nothing and one that is back is used again without a request's help.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

from fairlead_server.hydrate.breaker import Breaker, Circuit
from fairlead_server.hydrate.found import Found, Heard, JoinKeys, Key, Lookup
from fairlead_server.metrics import ModelMetrics, ReadOutcome

_LOG = logging.getLogger(__name__)
_GRACE_TURNS = 8
"""Turns of the event loop (microseconds each) between an answer's arrival and the waiting requests."""
_ROWS_PER_READ = 512
"""Requests are read together up to so many rows; one of more is read alone."""
_STUCK_PAUSE_S = 0.1


class BackEnd(Protocol):
    """A way to ask one kind of online store; a read that hangs must end by itself at some time."""

    @property
    def name(self) -> str:
        """What it is called in logs and metrics."""

    @property
    def reads_at_once(self) -> int:
        """Reads that may be under way together."""

    @property
    def probe(self) -> Lookup:
        """A key for each view to try a read with; nobody needs to have it."""

    async def connect(self) -> None:
        """Make connections before the first read, which may take longer than a read may; what fails, reads tell."""

    def start(self, lookup: Lookup, heard: Heard) -> bool:
        """Look up keys at once if that takes no task; return whether it does, and then tell in a later turn."""

    async def read(self, lookup: Lookup) -> Found:
        """Look up keys; an error is an answer too: that of every view."""

    async def close(self) -> None:
        """Let go of the store's connections."""


@dataclass(slots=True, eq=False)
class Asked:
    """A request that waits for a read."""

    rows: int
    keys: Mapping[JoinKeys, Sequence[Key]]
    """One key per row."""
    request: Any
    """What it is, for whoever settles it."""
    settled: bool = False
    """Whether it has been answered."""


class Together(NamedTuple):
    """The keys of several requests, each once."""

    lookup: Lookup
    places: Mapping[JoinKeys, Sequence[int] | None]
    """By row, over all requests, its key's place in the lookup; None where that is the row's own place."""

    @classmethod
    def of(cls, asked: Sequence[Asked]) -> Together:
        """Merge what is asked, which all has the same names of keys."""
        if len(asked) == 1 and asked[0].rows == 1:
            return cls(asked[0].keys, dict.fromkeys(asked[0].keys))
        lookup: dict[JoinKeys, Sequence[Key]] = {}
        places: dict[JoinKeys, Sequence[int] | None] = {}
        for names in asked[0].keys:
            keys = [key for one in asked for key in one.keys[names]]
            place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
            lookup[names] = list(place)
            places[names] = None if len(place) == len(keys) else [place[key] for key in keys]
        return cls(lookup, places)


Settle = Callable[[Sequence[Asked], Together, Found | None], None]
"""Answers requests of what was found; None if the store failed or did not answer in time."""


@dataclass(slots=True, eq=False)
class _Turn:
    """Requests that came in one turn of the event loop, and so have one deadline; none for an attempt by itself."""

    rows: int = 0
    asked: list[Asked] = field(default_factory=list)
    heard: asyncio.Future[bool] | None = None
    """Told how an attempt went."""
    timer: asyncio.TimerHandle | None = None
    read: _Read | None = None
    """What reads for it; None while it waits."""
    settled: bool = False


@dataclass(slots=True, eq=False)
class _Read:
    """One read of the back end."""

    turns: Sequence[_Turn]
    task: asyncio.Task[None] | None = None
    failed: bool = False
    """Whether it has been counted as a failure."""


class Reader:
    """Reads one back end for the requests of one hydrator."""

    def __init__(
        self,
        back_end: BackEnd,
        settle: Settle,
        *,
        deadline_s: float,
        metrics: ModelMetrics,
        waiting_limit: int = 1024,
    ) -> None:
        """Make the reader; nothing is read yet.

        Args:
            back_end: How the store is asked.
            settle: Answers requests, each exactly once.
            deadline_s: Longest wait of one request, seconds.
            metrics: Where reads are counted.
            waiting_limit: Requests that may wait for a read; those beyond it are told STORE_ERROR at once.
        """
        self._back_end = back_end
        self._settle = settle
        self._deadline_s = deadline_s
        self._metrics = metrics
        self._waiting_limit = waiting_limit
        self._waiting: deque[_Turn] = deque()
        self._waiting_requests = 0
        self._turn: _Turn | None = None
        self._reads: list[_Read] = []
        self._breaker = Breaker(random.random, self._note_circuit)
        self._next_attempt: asyncio.TimerHandle | None = None
        self._failing = False
        self._closed = False
        self._drained: asyncio.Future[None] | None = None

    @property
    def failing(self) -> bool:
        """Whether the last read failed or was not answered within the deadline."""
        return self._failing

    @property
    def circuit_open(self) -> bool:
        """Whether the store is left alone at the moment, but for attempts."""
        return self._breaker.circuit is not Circuit.CLOSED

    async def answers(self) -> bool:
        """Whether every view can be read now, asked with one key each."""
        await self._back_end.connect()
        heard: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._attempt(heard)
        return await heard

    async def drain(self) -> None:
        """Wait until nobody waits for a read."""
        if self._waiting or self._reads:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    async def close(self) -> None:
        """Stop reading and let go of the store's connections."""
        self._closed = True
        if self._next_attempt is not None:
            self._next_attempt.cancel()
        tasks = {read.task for read in self._reads if read.task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._back_end.close()

    def submit(self, asked: Asked) -> None:
        """Have a request settled, in a later turn of the event loop."""
        loop = asyncio.get_running_loop()
        if self._refuses:
            self._metrics.count_read(ReadOutcome.REFUSED)
            loop.call_soon(self._settle, [asked], Together.of([asked]), None)
            return
        turn = self._turn
        if turn is None or turn.rows + asked.rows > _ROWS_PER_READ:
            if turn is None:
                loop.call_soon(self._begin)
            turn = self._turn = self._turn_of()
            self._waiting.append(turn)
        turn.asked.append(asked)
        turn.rows += asked.rows
        self._waiting_requests += 1

    @property
    def _refuses(self) -> bool:
        if self._breaker.circuit is not Circuit.CLOSED or self._waiting_requests >= self._waiting_limit:
            return True
        return self._failing and bool(self._reads)

    def _turn_of(self, heard: asyncio.Future[bool] | None = None) -> _Turn:
        turn = _Turn(heard=heard)
        turn.timer = asyncio.get_running_loop().call_later(self._deadline_s, self._expire, turn, _GRACE_TURNS)
        return turn

    def _begin(self) -> None:
        self._turn = None
        self._start()

    def _start(self) -> None:
        """Read for those that wait, as far as the back end takes more reads."""
        while self._waiting and len(self._reads) < self._back_end.reads_at_once:
            turns: list[_Turn] = []
            rows = 0
            while self._waiting and (not turns or rows + self._waiting[0].rows <= _ROWS_PER_READ):
                turn = self._waiting.popleft()
                if turn is self._turn:  # it is read now; whoever comes later has another
                    self._turn = None
                if not turn.settled:
                    turns.append(turn)
                    rows += turn.rows
                    self._waiting_requests -= len(turn.asked)
            if turns:
                self._begin_read(turns)

    def _begin_read(self, turns: Sequence[_Turn]) -> None:
        read = _Read(turns)
        for turn in turns:
            turn.read = read
        self._reads.append(read)
        asked = turns[0].asked if len(turns) == 1 else [one for turn in turns for one in turn.asked]
        together = Together.of(asked) if asked else None
        lookup = together.lookup if together else self._back_end.probe
        ended = partial(self._ended, read, asked, together)
        try:
            if self._back_end.start(lookup, ended):
                return
        except Exception as error:  # noqa: BLE001 -- as in _read
            asyncio.get_running_loop().call_soon(ended, error)
            return
        read.task = asyncio.get_running_loop().create_task(self._read(lookup, ended))

    async def _read(self, lookup: Lookup, ended: Heard) -> None:
        found: Found | Exception
        try:
            found = await self._back_end.read(lookup)
        except Exception as error:  # noqa: BLE001 -- whatever a store raises is a STORE_ERROR; it is counted
            found = error
        ended(found)

    def _ended(
        self, read: _Read, asked: Sequence[Asked], together: Together | None, outcome: Found | Exception
    ) -> None:
        found = None if isinstance(outcome, Exception) else outcome
        if found is None:
            _LOG.info("online store read failed reader=%s error=%s", self._back_end.name, type(outcome).__name__)
        self._reads.remove(read)
        self._note_end(read, found)
        self._start()
        if self._drained is not None and not (self._reads or self._waiting or self._drained.done()):
            self._drained.set_result(None)
        waiting = [turn for turn in read.turns if not turn.settled]
        for turn in waiting:
            self._end(turn, ReadOutcome.ERROR if _failed(found) else ReadOutcome.OK)
        if waiting and together:
            self._settle(asked, together, found)

    def _end(self, turn: _Turn, outcome: ReadOutcome) -> None:
        turn.settled = True
        if turn.timer is not None:
            turn.timer.cancel()
        if turn.heard is not None and not turn.heard.done():
            turn.heard.set_result(outcome is ReadOutcome.OK)
        self._metrics.count_read(outcome, max(1, len(turn.asked)))

    def _expire(self, turn: _Turn, grace_turns: int) -> None:
        """Give up waiting, unless the answer is there and only the event loop was late to hand it on."""
        if turn.settled:
            return
        if grace_turns:
            asyncio.get_running_loop().call_soon(self._expire, turn, grace_turns - 1)
            return
        self._end(turn, ReadOutcome.TIMEOUT)
        if turn.read is None:
            self._waiting_requests -= len(turn.asked)
            self._note_failing(failing=True)
        else:
            self._fail(turn.read)
        if turn.asked:
            self._settle(turn.asked, Together.of(turn.asked), None)

    def _note_end(self, read: _Read, found: Found | None) -> None:
        if found is None or (found and not any(view is not None for view in found.values())):
            self._fail(read)
            return
        # A view that cannot be read fails alone. A late answer shows that the store is there, not that it is well.
        self._note_failing(failing=_failed(found))
        if not read.failed:
            self._breaker.succeeded()

    def _fail(self, read: _Read) -> None:
        """Count a read as failed, once."""
        self._note_failing(failing=True)
        if read.failed:
            return
        read.failed = True
        pause_s = self._breaker.failed()
        if pause_s is not None and not self._closed:
            self._next_attempt = asyncio.get_running_loop().call_later(pause_s, self._attempt_again)

    def _attempt_again(self) -> None:
        if self._reads:  # one that is stuck; another would only queue behind it
            self._next_attempt = asyncio.get_running_loop().call_later(_STUCK_PAUSE_S, self._attempt_again)
            return
        self._breaker.tries()
        self._attempt(None)

    def _attempt(self, heard: asyncio.Future[bool] | None) -> None:
        self._begin_read([self._turn_of(heard)])

    def _note_failing(self, *, failing: bool) -> None:
        if failing is not self._failing:
            self._failing = failing
            _LOG.warning("online store %s", "does not answer" if failing else "answers again")

    def _note_circuit(self, circuit: Circuit) -> None:
        self._metrics.count_circuit(circuit)


def _failed(found: Found | None) -> bool:
    return found is None or any(view is None for view in found.values())
