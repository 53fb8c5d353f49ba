"""What is done in the background: the fold of every experiment, again and again, and the end of retention."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count

from anyio import to_thread

from fairlead_ledger.ledger import Ledger
from fairlead_ledger.service import Service

_LOG = logging.getLogger(__name__)
_PAUSE_S = 2.0
_ROUNDS_PER_PURGE = 300
_ROUNDS_PER_COUNT = 10


@asynccontextmanager
async def folding(service: Service) -> AsyncIterator[None]:
    """Fold in the background as long as the block lasts."""
    task = asyncio.create_task(_fold_forever(service))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _fold_forever(service: Service) -> None:
    for number in count():
        try:
            await _fold(service.ledger)
            if number % _ROUNDS_PER_PURGE == 0:
                await to_thread.run_sync(service.ledger.purge, service.limits.retention_s)
            if number % _ROUNDS_PER_COUNT == 0:
                service.metrics.tell_backlog(await to_thread.run_sync(service.ledger.backlog))
            service.metrics.folds.labels("done").inc()
        except Exception as error:  # noqa: BLE001 -- the loop's top: the next round tries again
            service.metrics.folds.labels("failed").inc()
            _LOG.warning("fold failed error=%s", type(error).__name__)
        await asyncio.sleep(_PAUSE_S)


async def _fold(ledger: Ledger) -> None:
    now_us = ledger.clock.now_us()
    for experiment in await to_thread.run_sync(ledger.due, now_us):
        while await to_thread.run_sync(ledger.fold, experiment, now_us):
            pass  # between two transactions is where the end may come
