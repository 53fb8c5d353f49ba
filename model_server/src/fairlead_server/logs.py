"""Log lines: one line each, ``key=value``, on standard error."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

QUIET = ("kserve", "kserve.trace", "uvicorn", "uvicorn.error", "uvicorn.access", "grpc", "feast", "asyncio")
"""Loggers that are heard only when something goes wrong."""


_AT_ONCE = 100
"""Lines of one message within a window; the others are counted."""
_WINDOW_S = 60.0
_MOST_MESSAGES = 256
_OURS = "fairlead"


class Damper(logging.Filter):
    """Lets each message through so many times a minute, so that no client can fill a log with what it does wrong.

    What was held back is told by the message's next line. Messages are constants; a library's count as one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin; ``clock`` gives seconds."""
        super().__init__()
        self._clock = clock
        self._windows: dict[tuple[str, str], list[float]] = {}
        """Start of the window in seconds, and lines since, by logger and message."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a record; one that follows others that were not says how many."""
        key = (record.name, str(record.msg) if record.name.startswith(_OURS) else "")
        now_s = self._clock()
        window = self._windows.get(key)
        if window is None or now_s - window[0] >= _WINDOW_S:
            held_back = 0 if window is None else max(0, int(window[1]) - _AT_ONCE)
            if len(self._windows) >= _MOST_MESSAGES:
                self._windows.clear()
            window = self._windows[key] = [now_s, 0]
            if held_back:
                record.msg, record.args = f"{record.getMessage()} held_back={held_back}", None
        window[1] += 1
        return window[1] <= _AT_ONCE


class KeyValueFormatter(logging.Formatter):
    """Writes ``time=… level=… message…``; the message is a constant followed by its own ``key=value`` fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text = record.getMessage().replace("\n", " ")
        return f"time={moment}.{record.msecs:03.0f}Z level={record.levelname.lower()} {text}"


def configure() -> None:
    """Send every logger of the process to standard error, libraries from ``ERROR`` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    handler.addFilter(Damper())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("fairlead_server").setLevel(logging.INFO)
    for name in QUIET:
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
        logger.handlers[:] = []
        logger.propagate = True
    logging.getLogger("grpc._cython.cygrpc").addFilter(_shows_no_header)


def _shows_no_header(record: logging.LogRecord) -> bool:
    """Drop gRPC's complaint about metadata that is not UTF-8: it shows a client's bytes, and comes at its will."""
    return not str(record.msg).startswith("Invalid encoding")


def place_of(error: BaseException) -> str:
    """Return where an exception was raised; its text may hold what a client sent, and is never logged."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(place.filename).name}:{place.lineno}"
