"""Waiting for what another process or thread brings about."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

_PAUSE_S = 0.03


async def until(condition: Callable[[], bool | Awaitable[bool]], timeout_s: float = 15.0) -> None:
    """Return once ``condition`` holds.

    Raises:
        TimeoutError: It did not within ``timeout_s`` seconds.
    """
    async with asyncio.timeout(timeout_s):
        while True:
            found = condition()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(_PAUSE_S)


def until_so(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Return once ``condition`` holds; blocks the thread.

    Raises:
        TimeoutError: It did not within ``timeout_s`` seconds.
    """
    ends_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > ends_s:
            raise TimeoutError
        time.sleep(_PAUSE_S)
