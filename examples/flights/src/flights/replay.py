"""The replay: flights asked about as live traffic, on a virtual clock.

Simulated time moves in ticks. Before a tick, every request asked so far has been answered; then the features of
all flights landed by then are committed to the online store, then the clock moves, then what became of the flights
that have landed is told to the ledger, and the tick's requests are sent at real times that were fixed before the
start. Within a tick the load is open-loop; an answer that is late at the tick's end delays the next one, which shows,
because latency counts from when a request was due. Time waits for nobody else but the ledger, and a rollout whose arm
is just being restarted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp
import numpy as np
import orjson
from numpy.typing import NDArray

from fairlead.clock import ReplayClockWriter
from fairlead.feedback.token import PREDICTION_HEADER
from fairlead.route import UNIT_HEADER, VARIANT_HEADER
from flights.scores import Labels
from flights.traffic import Asks, Pace, Tick

HOUR_US = 3_600_000_000
REQUEST_TIMEOUT_S = 10.0
MAX_CONNECTIONS = 64


class FeaturePublisher(Protocol):
    """Commits features to the online store as simulated time goes on."""

    def publish_until(self, time_us: int) -> None:
        """Commit every feature known by ``time_us`` (microseconds since 1970-01-01 UTC), then return."""


@dataclass(slots=True)
class Answers:
    """What came back, one entry per request; n is their number."""

    variant: list[str | None]
    """Variant that answered; None where nothing did."""
    probability: NDArray[np.float64]
    """Served probability, NaN where nothing was answered. Shape [n]."""
    latency_s: NDArray[np.float64]
    """Seconds from when the request was due to its answer. Shape [n]."""
    states: list[dict[str, str] | None]
    """Feature state by ``view__name``."""
    labelled: NDArray[np.bool_]
    """Whether the label has arrived. Shape [n]."""
    prediction_id: list[str | None]
    """Prediction token; None where there was none: the request was not part of an experiment."""
    errors: dict[str, int] = field(default_factory=dict)
    """How often each kind of failure was seen."""

    @classmethod
    def empty(cls, n: int) -> Answers:
        """Return room for ``n`` answers."""
        unknown = np.full(n, np.nan)
        return cls([None] * n, unknown, unknown.copy(), [None] * n, np.zeros(n, dtype=bool), [None] * n)

    @property
    def lost(self) -> int:
        """Number of requests without an answer."""
        return sum(variant is None for variant in self.variant)


class Listener(Protocol):
    """Hears what became of predictions, as simulated time goes on."""

    def add(self, prediction_id: str, actual: int) -> None:
        """Take what happened after one prediction."""

    async def advance(self, time_us: int) -> None:
        """Return when the listener can bear that it is ``time_us`` (microseconds since 1970-01-01 UTC)."""

    async def finish(self) -> None:
        """Return when everything was heard."""


async def _at_once(_: int) -> None:
    """Wait for nobody."""


@dataclass(slots=True)
class Replay:
    """Sends the requests, moves the clock, delivers the labels."""

    asks: Asks
    pace: Pace
    url: str
    """The model's V1 predict address."""
    output: str
    """Name of the probability among the answer's outputs."""
    publisher: FeaturePublisher
    clock: ReplayClockWriter
    on_tick: Callable[[Tick, Answers], None] = lambda _tick, _answers: None
    listener: Callable[[aiohttp.ClientSession], Listener] | None = None
    """Makes the one who is told what became of flights; None if nobody is."""
    may_go_on: Callable[[int], Awaitable[None]] = _at_once
    """Awaited before each tick with its time."""
    _pending: set[asyncio.Task[None]] = field(init=False, default_factory=set)
    _fault: BaseException | None = field(init=False, default=None)
    _told: Listener | None = field(init=False, default=None)

    async def run(self, end_us: int) -> Answers:
        """Replay all requests, then let time run to ``end_us`` so that every landing brings its label.

        Raises:
            KeyError: An answer is not of the form that was asked for.
        """
        answers = Answers.empty(len(self.asks))
        labels = Labels(self.asks.landed_us)
        connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS)
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            self._told = self.listener(session) if self.listener else None
            start_s = asyncio.get_running_loop().time()
            for tick in self.pace.ticks(self.asks.asked_us):
                await self._settle()
                start_s += await self._wait_for_others(tick)
                self._advance(tick.time_us, labels, answers)
                self.on_tick(tick, answers)
                await self._send(tick, start_s, session, answers)
            await self._settle()
            for time_us in self._hours_until(end_us):
                self._advance(time_us, labels, answers)
                if self._told:
                    await self._told.advance(time_us)
            if self._told:
                await self._told.finish()
        return answers

    def _hours_until(self, end_us: int) -> Iterator[int]:
        """Yield the moments after the last request: an hour apart if somebody hears of landings, and the end."""
        last_us = int(self.asks.asked_us[-1]) if len(self.asks) else end_us
        yield from range(last_us + HOUR_US, end_us, HOUR_US) if self._told else ()
        yield end_us

    async def _wait_for_others(self, tick: Tick) -> float:
        """Return the real seconds that time stood still before ``tick``: nobody's latency."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await self.may_go_on(tick.time_us)
        if self._told:
            await self._told.advance(tick.time_us)
        return loop.time() - began_s

    async def _settle(self) -> None:
        if self._pending:
            await asyncio.wait(self._pending)
        if self._fault is not None:
            raise self._fault

    def _advance(self, time_us: int, labels: Labels, answers: Answers) -> None:
        self.publisher.publish_until(time_us)
        self.clock.set_us(time_us)
        landed = labels.deliver_until(time_us)
        answers.labelled[landed] = True
        for index in landed.tolist() if self._told else ():
            prediction_id = answers.prediction_id[index]
            if self._told and prediction_id:
                self._told.add(prediction_id, int(self.asks.late[index]))

    async def _send(self, tick: Tick, start_s: float, session: aiohttp.ClientSession, answers: Answers) -> None:
        loop = asyncio.get_running_loop()
        for index in range(tick.first, tick.last):
            due_s = start_s + self.pace.due_s(tick, index)
            if (wait_s := due_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            task = loop.create_task(self._ask(index, due_s, session, answers))
            self._pending.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._pending.discard(task)
        self._fault = self._fault or task.exception()

    async def _ask(self, index: int, due_s: float, session: aiohttp.ClientSession, answers: Answers) -> None:
        unit = self.asks.units[index]
        headers = {"content-type": "application/json"} | ({UNIT_HEADER: unit} if unit else {})
        try:
            async with session.post(self.url, data=self.asks.bodies[index], headers=headers) as response:
                body = await response.read()
                if not response.ok:
                    _count(answers, f"{response.status} {body[:120].decode('utf-8', 'replace')}")
                    return
                answers.variant[index] = response.headers.get(VARIANT_HEADER, "")
                answers.prediction_id[index] = response.headers.get(PREDICTION_HEADER)
        except (aiohttp.ClientError, TimeoutError) as error:
            _count(answers, type(error).__name__)
            return
        answer = orjson.loads(body)
        answers.latency_s[index] = asyncio.get_running_loop().time() - due_s
        answers.probability[index] = answer["predictions"][0][self.output]
        answers.states[index] = {name: states[0] for name, states in answer["parameters"]["feature_states"].items()}


def _count(answers: Answers, kind: str) -> None:
    answers.errors[kind] = answers.errors.get(kind, 0) + 1
