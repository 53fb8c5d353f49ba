"""One open watch: first what is there, then what changes, with bookmarks in between."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import orjson

from support.kube.errors import ApiError, bad_request
from support.kube.faults import CutLine, FallSilent, WatchError, WatchFault
from support.kube.kinds import Kind
from support.kube.store import Change, Journal, Object, Store, Stored

Wanted = Callable[[Stored], bool]
_LONGEST_S = 1800
_HALF_A_LINE = 40


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What a watch is to deliver."""

    kind: Kind
    namespace: str
    wanted: Wanted
    revision: str
    bookmarks: bool
    initial_events: bool
    """Send what is there as events, and a marked bookmark after them (``sendInitialEvents``)."""
    timeout_s: float = _LONGEST_S

    @property
    def from_now(self) -> bool:
        """Whether it begins with the objects that there are, instead of a known revision."""
        return self.initial_events or self.revision in {"", "0"}


class Watch:
    """An open watch; ``lines`` is what its client reads."""

    def __init__(self, request: WatchRequest, store: Store, bookmark_interval_s: float) -> None:
        """Watch ``store`` as ``request`` says."""
        self.request = request
        self._store = store
        self._journal: Journal = store.journal(request.kind.resource)
        self._bookmark_interval_s = bookmark_interval_s
        self._interruption: WatchFault | None = None
        self._revision = 0
        self._ends_at = self._bookmark_at = 0.0
        self._is_over = False

    def interrupt(self, fault: WatchFault) -> None:
        """Let ``fault`` befall it at once."""
        self._interruption = fault
        self._journal.wake()

    async def lines(self, served: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yield events, one line each, until its time is over or the kind is no longer ``served``.

        Raises:
            ApiError: 400, it begins at no revision.
            CutError: The connection is to be cut now.
        """
        now = asyncio.get_running_loop().time
        self._ends_at, self._bookmark_at = now() + self.request.timeout_s, now() + self._bookmark_interval_s
        for line in self._begun():
            yield line
        while served() and now() < self._ends_at:
            for line in self._interrupted(self._interruption) if self._interruption else self._news(now()):
                yield line
            if self._is_over:
                return
            await self._pause()

    def _begun(self) -> list[bytes]:
        self._revision = self._store.revision if self.request.from_now else _number(self.request.revision)
        return self._initial(self._revision) if self.request.from_now else []

    def _news(self, now_s: float) -> list[bytes]:
        try:
            changes = self._journal.since(self._revision)
        except ApiError as gone:
            self._is_over = True
            return [_line("ERROR", orjson.dumps(gone.status()))]
        lines = [line for change in changes if (line := self._event(change))]
        self._revision = max(self._revision, self._store.revision)
        if now_s >= self._bookmark_at:
            self._bookmark_at += self._bookmark_interval_s
            lines += [self._bookmark(self._revision)] if self.request.bookmarks else []
        return lines

    async def _pause(self) -> None:
        if self._journal.newest > self._revision and not self._interruption:
            return
        try:
            async with asyncio.timeout_at(min(self._ends_at, self._bookmark_at)):
                await self._journal.grown()
        except TimeoutError:
            return

    def _initial(self, revision: int) -> list[bytes]:
        kind = self.request.kind
        there = self._store.list(kind.resource, self.request.namespace)
        lines = [_line("ADDED", stored.document(kind)) for stored in there if self.request.wanted(stored)]
        if self.request.initial_events and self.request.bookmarks:
            lines.append(self._bookmark(revision, {"annotations": {"k8s.io/initial-events-end": "true"}}))
        return lines

    def _event(self, change: Change) -> bytes | None:
        """Return a change as this watch sees it: what leaves its selection is deleted, what enters is added."""
        before = change.previous is not None and self._selects(change.previous)
        after = change.type != "DELETED" and self._selects(change.stored)
        if not before and not after:
            return None
        sort = "DELETED" if not after else "MODIFIED" if before else "ADDED"
        return _line(sort, change.stored.document(self.request.kind))

    def _selects(self, stored: Stored) -> bool:
        return self.request.namespace in {"", stored.namespace} and self.request.wanted(stored)

    def _bookmark(self, revision: int, extra: Object | None = None) -> bytes:
        kind = self.request.kind
        metadata = {"resourceVersion": str(revision), "creationTimestamp": None} | (extra or {})
        value = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
        return _line("BOOKMARK", orjson.dumps(value))

    def _interrupted(self, fault: WatchFault) -> list[bytes]:
        self._is_over = not isinstance(fault, FallSilent)
        match fault:
            case WatchError(code, reason, message):
                return [_line("ERROR", orjson.dumps(ApiError(code, reason, message).status()))]
            case CutLine():
                raise CutError(self._bookmark(self._store.revision)[:_HALF_A_LINE])
            case FallSilent():
                self._bookmark_at = self._ends_at = math.inf
        return []


class CutError(Exception):
    """The connection ends within a line; ``rest`` is what is still sent of it."""

    def __init__(self, rest: bytes) -> None:
        """Keep the part of the line that is still sent."""
        super().__init__("watch cut by the test")
        self.rest = rest


def _line(sort: str, document: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (sort.encode(), document)


def _number(revision: str) -> int:
    try:
        return int(revision)
    except ValueError as error:
        raise bad_request(f"invalid resource version {revision!r}") from error
