"""The end of a process that serves: readiness off first, then everything in flight is answered, within a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from fairlead_server.listening import Entrance
from fairlead_server.protocol.connections import Drained
from fairlead_server.protocol.service import Service


@dataclass(frozen=True, slots=True)
class Drain:
    """How long the end may take."""

    delay_s: float
    """Time in which new connections are still taken, for load balancers to notice; part of the deadline."""
    deadline_s: float


async def drain(service: Service, entrance: Entrance, ways: Sequence[Drained], within: Drain) -> None:
    """End what answers; returns when nothing is in flight any more, or the deadline has passed.

    Args:
        service: Says not ready from now on.
        entrance: Where connections come from.
        ways: Every protocol's connections, or its server.
        within: How long it may take.
    """
    loop = asyncio.get_running_loop()
    end_s = loop.time() + within.deadline_s
    service.drain()
    for way in ways:
        way.retire()
    if within.delay_s:
        await asyncio.sleep(min(within.delay_s, within.deadline_s))
    await entrance.close()
    left_s = max(0.0, end_s - loop.time())
    await asyncio.gather(*(way.drain(left_s) for way in ways))
