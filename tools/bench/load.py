"""A bounded closed-loop load over HTTP, and what it costs the server in CPU time."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np

JSON = {"content-type": "application/json"}
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Call:
    """One request, always the same."""

    url: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Cost:
    """What one round showed."""

    cpu_us: float
    """CPU time of the server process per request, microseconds, user and system."""
    per_s: float
    """Requests answered per second."""
    p50_ms: float
    p99_ms: float


def cpu_s(pid: int) -> float:
    """Return the CPU seconds a process has used, all its threads together (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


async def measure(call: Call, pid: int, *, connections: int, requests: int) -> Cost:
    """Send ``requests`` over ``connections`` and return their cost.

    Raises:
        aiohttp.ClientResponseError: A request was not answered with success.
    """
    latencies: list[float] = []
    left = iter(range(requests))

    async def worker(session: aiohttp.ClientSession) -> None:
        for _ in left:
            start = time.perf_counter()
            async with session.post(call.url, data=call.body, headers=JSON) as response:
                response.raise_for_status()
                await response.read()
            latencies.append(time.perf_counter() - start)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:
        cpu, wall = cpu_s(pid), time.perf_counter()
        await asyncio.gather(*(worker(session) for _ in range(connections)))
        cpu, wall = cpu_s(pid) - cpu, time.perf_counter() - wall
    p50, p99 = np.percentile(np.array(latencies) * 1e3, [50, 99])
    return Cost(cpu / requests * 1e6, requests / wall, float(p50), float(p99))
