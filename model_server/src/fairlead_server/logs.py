"""Log lines: one line each, ``key=value``, on standard error."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from pathlib import Path

QUIET = ("kserve", "kserve.trace", "uvicorn", "uvicorn.error", "uvicorn.access", "grpc", "feast", "asyncio")
"""Loggers that are heard only when something goes wrong."""


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
