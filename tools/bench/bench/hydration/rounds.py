"""The rounds: answers compared first, then every system in turn, shuffled, case by case."""

from __future__ import annotations

import asyncio
import gc
import math
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.hydration.systems import Case, Fairlead, Feast, System
from bench.results import Record

_WARM_CALLS = 20
_NS_PER_US = 1000


class WrongAnswer(AssertionError):
    """Two systems disagree on a value."""


@dataclass(slots=True)
class Measured:
    """What all rounds showed of one system in one case."""

    waits_us: list[float] = field(default_factory=list)
    """Of every call of every round."""
    rates: list[float] = field(default_factory=list)
    """Calls per second, by round."""
    cpu_us: list[float] = field(default_factory=list)
    """CPU time of this process per call, by round."""
    full_collections: int = 0
    """Of the garbage collector, during all rounds."""

    def record(self, case: str, system: str) -> Record:
        """Return percentiles of all calls, and medians of the rounds' rates and CPU times."""
        p50_us, p99_us = np.percentile(self.waits_us, [50, 99])
        rate, cpu_us = statistics.median(self.rates), statistics.median(self.cpu_us)
        return Record(case, system, round(rate, 1), round(p50_us, 1), round(p99_us, 1), round(cpu_us, 2))


Found = Mapping[tuple[str, str], Measured]
"""By case and system."""


async def compare(ours: Fairlead, feasts: Feast, questions: int) -> None:
    """Ask both the same questions.

    Raises:
        WrongAnswer: A value differs.
    """
    for i in range(questions):
        wanted, found = await feasts.answer(i), await ours.answer(i)
        for name, values in found.items():
            if not _same(values, wanted[name]):
                raise WrongAnswer(f"question {i}, feature {name}: {values[:5]} instead of {wanted[name][:5]}")


async def take_turns(
    systems: Mapping[str, Mapping[str, System]],
    cases: Sequence[Case],
    calls: Callable[[Case, str], int],
    rounds: int,
    note: Callable[[str], None],
) -> Found:
    """Measure every system of every case in rounds.

    Args:
        systems: By case and name.
        cases: What is asked.
        calls: How many calls a system has in one round of a case.
        rounds: How often.
        note: Told what comes next.
    """
    order = random.Random(time.time_ns())  # noqa: S311 -- an order
    found: dict[tuple[str, str], Measured] = defaultdict(Measured)
    for number in range(rounds):
        for case in order.sample(list(cases), len(cases)):
            for name in order.sample(list(systems[case.name]), len(systems[case.name])):
                note(f"round {number + 1} of {rounds}: {case.name} {name}")
                system = systems[case.name][name]
                await _ask(system, range(_WARM_CALLS), case.in_flight)
                await _measure(system, case, calls(case, name), found[case.name, name])
    return found


async def _measure(system: System, case: Case, calls: int, into: Measured) -> None:
    collections, cpu_s, start_s = _full_collections(), time.process_time(), time.perf_counter()
    waits_us = await _ask(system, range(calls), case.in_flight)
    took_s = time.perf_counter() - start_s
    into.cpu_us.append((time.process_time() - cpu_s) / calls * 1e6)
    into.rates.append(calls / took_s)
    into.waits_us += waits_us
    into.full_collections += _full_collections() - collections


async def _ask(system: System, calls: range, in_flight: int) -> list[float]:
    """Ask so many questions, as many at once; return how long each took."""
    waits_us: list[float] = []
    if in_flight == 1:
        await _ask_in_turn(system, iter(calls), waits_us)
    else:
        left = iter(calls)  # shared: whoever is done takes the next
        await asyncio.gather(*(_ask_in_turn(system, left, waits_us) for _ in range(in_flight)))
    return waits_us


async def _ask_in_turn(system: System, calls: Iterator[int], waits_us: list[float]) -> None:
    for i in calls:
        start_ns = time.perf_counter_ns()
        await system.ask(i)
        waits_us.append((time.perf_counter_ns() - start_ns) / _NS_PER_US)


def _full_collections() -> int:
    collections: int = gc.get_stats()[-1]["collections"]
    return collections


def _same(ours: Sequence[object], feasts: Sequence[object]) -> bool:
    return len(ours) == len(feasts) and all(
        a == b or (a is None and isinstance(b, float) and math.isnan(b)) for a, b in zip(ours, feasts, strict=True)
    )
