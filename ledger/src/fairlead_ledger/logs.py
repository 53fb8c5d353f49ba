"""Log lines: one line each, ``key=value``, on standard error; no units, no bodies, no secrets."""

from __future__ import annotations

import logging
import sys
import time


class KeyValueFormatter(logging.Formatter):
    """Writes ``time=… level=… message…``; the message is a constant followed by its own ``key=value`` fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text = record.getMessage().replace("\n", " ")
        return f"time={moment}.{record.msecs:03.0f}Z level={record.levelname.lower()} {text}"


def configure() -> None:
    """Send every logger of the process to standard error, libraries from ``WARNING`` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("fairlead_ledger").setLevel(logging.INFO)
