"""Stopping the world after a number of writes."""

from __future__ import annotations

import asyncio

from support.kube.calls import Call


class Halt:
    """Lets ``writes`` writes through; then nothing is answered until ``resume``."""

    def __init__(self, writes: int) -> None:
        """Count down from ``writes``."""
        self._left = writes
        self.held: list[Call] = []
        """Calls that came while the world stood still; they are carried out once it goes on."""
        self._reached = asyncio.Event()
        self._resumed = asyncio.Event()
        if writes == 0:
            self._reached.set()

    @property
    def is_reached(self) -> bool:
        """Whether the world stands still, or did."""
        return self._reached.is_set()

    async def reached(self, timeout_s: float = 10.0) -> None:
        """Wait until the world stands still.

        Raises:
            TimeoutError: Fewer writes came within ``timeout_s`` seconds.
        """
        async with asyncio.timeout(timeout_s):
            await self._reached.wait()

    def resume(self) -> None:
        """Let everything go on, for good."""
        self._resumed.set()

    def count(self) -> None:
        """Count one write."""
        self._left -= 1
        if self._left <= 0:
            self._reached.set()

    async def begun(self, call: Call) -> None:
        """Let a call begin: at once, or while the world stands still, once it goes on."""
        if self._reached.is_set() and not self._resumed.is_set():
            self.held.append(call)
        await self.passed()

    async def passed(self) -> None:
        """Return at once, or while the world stands still, once it goes on."""
        if self._reached.is_set():
            await self._resumed.wait()
