"""Containers' logs as a kubelet keeps them: lines with the time of their writing, rotated, one log for each life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from support.kube.errors import ApiError


@dataclass(slots=True)
class ContainerLog:
    """The log of one life of a container."""

    lines: list[tuple[int, bytes]] = field(default_factory=list)
    """When, microseconds since 1970-01-01 UTC, and what; whole, whatever was rotated away."""
    begins: int = 0
    """Index of the first line that is in the present file."""
    has_ended: bool = False
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, at_us: int, *lines: bytes) -> None:
        """Have the container write."""
        self.lines += [(at_us, line) for line in lines]
        self._wake()

    def rotate(self) -> None:
        """Begin a new file; who follows has read the old one to its end."""
        self.begins = len(self.lines)

    def end(self) -> None:
        """End the container."""
        self.has_ended = True
        self._wake()

    async def read(self, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Yield lines as the API does."""
        since = query.get("sinceTime")
        since_us = round(datetime.fromisoformat(since).timestamp() * 1e6) if since else 0
        place = self.begins
        while True:
            grown = self._grown
            for at_us, line in self.lines[place:]:
                if at_us >= since_us:
                    yield stamp(at_us) + b" " + line + b"\n"
            place = len(self.lines)
            if query.get("follow") != "true" or self.has_ended:
                return
            if place == len(self.lines):
                await grown.wait()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()


@dataclass(slots=True)
class PodLogs:
    """The logs that are kept of a pod's container: of its present life, and of the one before."""

    now: ContainerLog
    before: ContainerLog | None = None


def log_asked(kept: PodLogs | None, query: Mapping[str, str]) -> ContainerLog:
    """Return the log that a query is about.

    Raises:
        ApiError: The pod is not there, or no such life of its container is kept.
    """
    if kept is None:
        raise ApiError(404, "NotFound", "no such pod", {"name": "pod"})
    log = kept.before if query.get("previous") == "true" else kept.now
    if log is None:
        raise ApiError(400, "BadRequest", "previous terminated container not found")
    return log


def stamp(at_us: int) -> bytes:
    """Return a time as the API puts it in front of a line."""
    when = datetime.fromtimestamp(at_us // 1_000_000, UTC)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{at_us % 1_000_000:06d}000Z".encode()
