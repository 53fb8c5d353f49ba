"""What parent and worker say to each other: one JSON object per line, over a socket that the worker inherits.

The parent imports this, so it imports nothing but the standard library.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

ENVIRONMENT = "FAIRLEAD_WORKER"
"""Variable in which a worker finds its :class:`Place`."""

_MOST_BYTES = 64 * 1024**2
"""Longest line."""


class Kind(StrEnum):
    """What a line says, by its field ``kind``."""

    OPEN = "open"
    """Worker: connections are answered, by "not ready" at first."""
    LOADED = "loaded"
    """Worker: the model is loaded."""
    LEAVING = "leaving"
    """Worker: takes no more connections, and ends when it has answered those that it has."""
    LOAD = "load"
    """Worker: ``received`` connections since the start, of which ``open`` are."""
    SHOWN = "shown"
    """Worker: its ``snapshot``; with ``id`` the answer to SHOW."""
    ASK = "ask"
    """Worker: wants the snapshots of all others; ``id``, ``snapshot`` is its own."""
    FAILED = "failed"
    """Worker: ends with exit code ``code`` because of ``message``."""
    SHOW = "show"
    """Parent: wants a snapshot; ``id``."""
    OTHERS = "others"
    """Parent: answer to ASK; ``id``, ``snapshots`` of live workers, and ``ended``, the sum of those that are not."""
    ALL_LOADED = "all-loaded"
    """Parent: every worker has been loaded once."""


class Port(StrEnum):
    """Which port a connection came to; one letter goes with its descriptor."""

    HTTP = "h"
    GRPC = "g"


@dataclass(frozen=True, slots=True)
class Place:
    """One worker's place among the others."""

    slot: int
    """Number among the workers, from 0; a worker that is started anew has that of the one before."""
    workers: int
    connections_fd: int
    """Socket over which connections come."""
    lines_fd: int
    """Socket over which lines come and go."""
    http_port: int
    grpc_port: int

    def encoded(self) -> str:
        """Return the variable's value."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Place | None:
        """Return the place that the environment names; None for a process that is no worker."""
        text = environment.get(ENVIRONMENT)
        return cls(**json.loads(text)) if text else None


class Lines:
    """Lines to and from the other side; used on the event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Wrap a connection; see :meth:`over`."""
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, connected: socket.socket) -> Lines:
        """Talk over a connected socket."""
        return cls(*await asyncio.open_connection(sock=connected, limit=_MOST_BYTES))

    def say(self, kind: Kind, **fields: Any) -> None:
        """Say one line; nothing happens if the other side is gone."""
        if not self._writer.is_closing():
            self._writer.write(line_of(kind, **fields))

    async def heard(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what the other side says, until it is gone."""
        while True:
            try:
                line = await self._reader.readline()
            except (OSError, ValueError):
                return
            if not line.endswith(b"\n"):
                return
            yield json.loads(line)

    async def close(self) -> None:
        """Say no more, once everything is said."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def line_of(kind: Kind, **fields: Any) -> bytes:
    """Return one line."""
    return json.dumps({"kind": kind, **fields}).encode() + b"\n"
