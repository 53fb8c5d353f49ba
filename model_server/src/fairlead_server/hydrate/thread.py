"""One thread for calls that block, which an event loop can await and a process can leave behind when it ends."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Call:
    function: Callable[[], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class WorkerThread:
    """Runs functions one after the other in a daemon thread.

    A pool's threads are joined when the interpreter ends, so that a call stuck in a store would keep the process
    from ending; this one is not.
    """

    def __init__(self, name: str) -> None:
        """Start the thread, called ``name``."""
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, function: Callable[[], _T]) -> asyncio.Future[_T]:
        """Have ``function`` called in the thread; the future is the running event loop's."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._calls.put(_Call(function, future, loop))
        return future

    def close(self) -> None:
        """Let the thread end after what it is doing; does not wait."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                result = call.function()
            except BaseException as error:  # noqa: BLE001 -- handed to whoever awaits the call
                _tell(call, call.future.set_exception, error)
            else:
                _tell(call, call.future.set_result, result)


def _tell(call: _Call, settle: Callable[[Any], None], outcome: Any) -> None:
    def settle_unless_cancelled() -> None:
        if not call.future.done():
            settle(outcome)

    try:
        call.loop.call_soon_threadsafe(settle_unless_cancelled)
    except RuntimeError:  # the loop has ended; nobody waits any more
        return
