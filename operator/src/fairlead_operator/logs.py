"""Log lines: a constant message with fields, as JSON for machines or as text for people.

What belongs to a whole reconcile (its key, id and generation) is bound once and appears on each of its lines.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final, TextIO

import orjson

from fairlead.clock import from_us
from fairlead_operator.settings import LogFormat

_bound: ContextVar[Mapping[str, Any]] = ContextVar("fairlead_log_fields", default={})  # noqa: B039 -- never changed

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET: Final = ("aiohttp.access", "kopf", "kubernetes", "asyncio")


@contextlib.contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Have ``fields`` on every line that is logged within, also by tasks that are started within."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def bind(**fields: Any) -> None:
    """Add ``fields`` to the lines of the present task from now on, such as a generation that has just been read."""
    _bound.set({**_bound.get(), **fields})


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return orjson.dumps(_fields(self, record), default=str).decode()


class TextFormatter(logging.Formatter):
    """Time, level, message, then the fields as ``name=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        given = _fields(self, record)
        time, level, _, message = (given.pop(name) for name in ("time", "level", "logger", "message"))
        trace = given.pop("trace", None)
        fields = "".join(f" {name}={value}" for name, value in given.items())
        return f"{time} {level:7} {message}{fields}" + (f"\n{trace}" if trace else "")


def configure(log_format: LogFormat, level: str, stream: TextIO | None = None) -> None:
    """Send all log lines of the process to ``stream`` (stderr if left out)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.JSON else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    # It warns that it leaves the signals alone, as it is meant to.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)


def _fields(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, Any]:
    line = {
        "time": from_us(int(record.created * 1e6)).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "logger": record.name,
        "message": record.getMessage(),
        **_bound.get(),
        **{name: value for name, value in vars(record).items() if name not in _STANDARD},
    }
    if record.exc_info:
        line["trace"] = formatter.formatException(record.exc_info)
    return line
