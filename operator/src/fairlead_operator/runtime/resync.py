"""Everything anew, now and then: what events missed is found, and what nobody owns any more is swept up."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

from fairlead_operator.errors import OperatorError
from fairlead_operator.runtime.keys import ObjectKey

_log = logging.getLogger(__name__)

Sweep: TypeAlias = Callable[[], Awaitable[None]]
"""Removes what no owner's reconcile would ever see; it may fail and is run again at the next resync."""

_FIRST_RETRY_S = 5.0
_JITTER = 0.1


class Resync:
    """Has every key run again at intervals."""

    def __init__(
        self,
        relist: Callable[[], Awaitable[Iterable[ObjectKey]]],
        add: Callable[[ObjectKey], None],
        *,
        randomness: random.Random,
        interval_s: float = 600.0,
        sweeps: Sequence[Sweep] = (),
        observe: Callable[[bool], None] = lambda well: None,  # noqa: ARG005 -- ignores it
    ) -> None:
        """Make a resync.

        Args:
            relist: Reads all parents anew, forgets those that have gone, and returns the keys of both.
            add: Has a key run.
            randomness: Spreads the resyncs of many processes.
            interval_s: From one resync to the next, give or take a tenth.
            sweeps: What else is done each time, in this order.
            observe: Told of each resync whether all of it went well.
        """
        self._relist = relist
        self._add = add
        self._random = randomness
        self._interval_s = interval_s
        self._sweeps = sweeps
        self._observe = observe

    async def run(self) -> None:
        """Resync at once, then at intervals, until cancelled; sooner again after a failure."""
        retry_s = _FIRST_RETRY_S
        while True:
            if await self.once():
                pause_s, retry_s = self._interval_s, _FIRST_RETRY_S
            else:
                pause_s, retry_s = retry_s, min(2 * retry_s, self._interval_s)
            await asyncio.sleep(pause_s * self._random.uniform(1 - _JITTER, 1 + _JITTER))

    async def once(self) -> bool:
        """Resync once; return whether all of it went well."""
        done = [await self._attempt("relist", self._enqueue)]
        done += [await self._attempt(getattr(sweep, "__name__", "sweep"), sweep) for sweep in self._sweeps]
        well = all(done)
        self._observe(well)
        return well

    async def _enqueue(self) -> None:
        for key in await self._relist():
            self._add(key)

    async def _attempt(self, name: str, step: Sweep) -> bool:
        try:
            await step()
        except OperatorError as error:
            _log.warning("a part of a resync failed", extra={"part": name, "error": type(error).__name__})
            return False
        return True
