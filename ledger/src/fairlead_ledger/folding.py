"""The fold in the background: every experiment, again and again, a bounded transaction at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from anyio import to_thread

from fairlead_ledger.service import Service

_LOG = logging.getLogger(__name__)
_PAUSE_S = 2.0


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
    while True:
        try:
            await to_thread.run_sync(service.ledger.fold_all)
            service.metrics.folds.labels("done").inc()
        except Exception as error:  # noqa: BLE001 -- the loop's top: the next round tries again
            service.metrics.folds.labels("failed").inc()
            _LOG.warning("fold failed error=%s", type(error).__name__)
        await asyncio.sleep(_PAUSE_S)
