"""Saturation first, then the load at half of it; a sample of what was seen for each stretch of time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import numpy as np
from bench.cases import Protocol

from soak.clients import GrpcClient, Pool, RestClient, Tally, send_garbage
from soak.server import Server
from soak.traffic import Question, Traffic

_SHARES: Mapping[Protocol, float] = {"v2-json": 0.4, "v2-binary": 0.2, "v1-json": 0.15, "grpc": 0.25}
_BROKEN = 0.01
_TURN_S = 0.002
_REST_CONNECTIONS, _GRPC_CONNECTIONS = 12, 4
_SATURATION_S = 6.0
_AHEAD = 256
"""Requests that wait for an answer while saturation is measured: more than connections take at once."""
_GARBAGE_EACH_S = 0.5
_DRAIN_S = 30.0
_SAMPLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """What was seen in one stretch of time."""

    end_s: float
    """Since the soak began."""
    requests_per_s: float
    p50_us: float
    p99_us: float
    p999_us: float
    resident_bytes: int
    """Median of what was sampled."""
    descriptors: int
    cpu_share: float
    """Of one core, by the server."""


@dataclass(slots=True)
class Outcome:
    """What a soak came to."""

    saturation_per_s: float = 0.0
    saturation_cpu_share: float = 0.0
    stretches: list[Stretch] = field(default_factory=list)
    answered: dict[str, int] = field(default_factory=dict)
    problems: dict[str, int] = field(default_factory=dict)
    garbage: int = 0
    descriptors_before: int = 0
    descriptors_after: int = 0
    unanswered: int = 0


async def soak(
    server: Server, traffic: Traffic, seconds: float, stretch_s: float, told: Callable[[Outcome], None]
) -> Outcome:
    """Load a server and look at it."""
    outcome = Outcome(descriptors_before=server.descriptors)
    run = _Run(server, traffic)
    await run.connect()
    outcome.saturation_per_s, outcome.saturation_cpu_share = await run.saturate()
    told(outcome)
    await run.load(outcome.saturation_per_s / 2, seconds, stretch_s, outcome, told)
    outcome.unanswered = await run.drain()
    outcome.answered, outcome.problems = dict(run.tally.answered), dict(run.tally.problems)
    outcome.garbage = run.garbage
    run.close()
    end_s = time.monotonic() + _DRAIN_S
    while server.descriptors > outcome.descriptors_before and time.monotonic() < end_s:  # noqa: ASYNC110 -- of another process
        await asyncio.sleep(0.1)
    outcome.descriptors_after = server.descriptors
    return outcome


class _Run:
    """One soak's connections."""

    def __init__(self, server: Server, traffic: Traffic) -> None:
        self.tally = Tally()
        self.garbage = 0
        self._server = server
        self._traffic = traffic
        self._rest, self._grpc = Pool(self.tally, RestClient), Pool(self.tally, GrpcClient)
        self._next = {
            "grpc": cycle(traffic.grpc),
            **{kind: cycle(listed) for kind, listed in traffic.rest.items()},
        }
        self._broken = cycle([*traffic.broken_rest, *traffic.broken_grpc])
        self._broken_rest = {id(one) for one in traffic.broken_rest}
        self._chance = random.Random(1)  # noqa: S311 -- a mix of requests

    async def connect(self) -> None:
        await self._rest.connect(self._server.http_port, _REST_CONNECTIONS)
        await self._grpc.connect(self._server.grpc_port, _GRPC_CONNECTIONS)

    def close(self) -> None:
        self._rest.close()
        self._grpc.close()

    def _ask(self, due_s: float) -> None:
        question: Question
        if self._chance.random() < _BROKEN:
            question = next(self._broken)
            pool = self._rest if id(question) in self._broken_rest else self._grpc
        else:
            (kind,) = self._chance.choices(list(_SHARES), list(_SHARES.values()))
            question = next(self._next[kind])
            pool = self._grpc if kind == "grpc" else self._rest
        pool.ask(question, due_s)

    async def saturate(self) -> tuple[float, float]:
        """Ask as much as is answered; return requests per second, and the server's share of a core."""
        start_s, cpu_s = time.perf_counter(), self._server.cpu_s
        before = self.tally.answered.total()
        asked = 0
        while (spent_s := time.perf_counter() - start_s) < _SATURATION_S:
            while asked - (self.tally.answered.total() - before) < _AHEAD:
                self._ask(time.perf_counter())
                asked += 1
            await asyncio.sleep(_TURN_S / 2)
        done = self.tally.answered.total() - before
        share = (self._server.cpu_s - cpu_s) / spent_s
        self._rest.forget()
        self._grpc.forget()
        await self.drain()
        self.tally.waits_us.clear()
        return done / spent_s, share

    async def load(
        self, rate: float, seconds: float, stretch_s: float, outcome: Outcome, told: Callable[[Outcome], None]
    ) -> None:
        """Ask at a fixed rate, whatever is answered, and sample."""
        start_s = begun_s = time.perf_counter()
        asked, sampled_s, garbage_s = 0, 0.0, 0.0
        cpu_s = self._server.cpu_s
        residents: list[int] = []
        garbage: Any = cycle(self._traffic.garbage)
        sending: set[asyncio.Task[None]] = set()
        while (spent_s := time.perf_counter() - start_s) < seconds:
            while asked < spent_s * rate:
                self._ask(start_s + asked / rate)
                asked += 1
            if spent_s - sampled_s > _SAMPLE_S:
                sampled_s = spent_s
                residents.append(self._server.resident_bytes)
                told(outcome)
            if spent_s - garbage_s > _GARBAGE_EACH_S:
                garbage_s = spent_s
                self.garbage += 1
                port = self._server.http_port if self.garbage % 2 else self._server.grpc_port
                task = asyncio.create_task(send_garbage(port, next(garbage)))
                sending.add(task)
                task.add_done_callback(sending.discard)
            if time.perf_counter() - begun_s >= stretch_s and residents:
                lasted_s = time.perf_counter() - begun_s
                share = (self._server.cpu_s - cpu_s) / lasted_s
                outcome.stretches.append(self._stretch(spent_s, lasted_s, residents, share))
                begun_s, cpu_s = time.perf_counter(), self._server.cpu_s
                residents = []
            await asyncio.sleep(_TURN_S)
        await asyncio.gather(*sending)

    def _stretch(self, end_s: float, lasted_s: float, residents: list[int], share: float) -> Stretch:
        waits = np.array(self.tally.waits_us or [0])
        self.tally.waits_us.clear()
        p50, p99, p999 = (float(one) for one in np.percentile(waits, [50, 99, 99.9]))
        resident = int(np.median(residents))
        return Stretch(end_s, len(waits) / lasted_s, p50, p99, p999, resident, self._server.descriptors, share)

    async def drain(self) -> int:
        """Wait for answers; return how many did not come."""
        end_s = time.monotonic() + _DRAIN_S
        while self._rest.waiting + self._grpc.waiting and time.monotonic() < end_s:  # noqa: ASYNC110 -- of many
            await asyncio.sleep(0.01)
        return self._rest.waiting + self._grpc.waiting
