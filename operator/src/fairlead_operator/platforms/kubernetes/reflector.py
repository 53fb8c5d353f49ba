"""Keeps the store's copy of one kind in step with the API: LIST, then WATCH from there, again and again.

A list is taken anew when there is none yet, when the API says that our version is too old (410), and when a kind that
was missing appears; what a new list lacks has gone, whether we were told or not. A connection that breaks or falls
silent is only opened again, at the last version that was heard of.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from fairlead_operator.platforms.kubernetes.api import Change, KubeApi
from fairlead_operator.platforms.kubernetes.errors import Expired, KindMissing, KubeError
from fairlead_operator.platforms.kubernetes.kinds import Kind, Watched
from fairlead_operator.platforms.kubernetes.store import ObjectStore, key_of
from fairlead_operator.runtime.keys import ObjectKey

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WatchTerms:
    """How long a watch lasts, how long it may be silent, and how failures are paused."""

    timeout_s: float = 300.0
    """When the server ends a watch; a new one goes on from there."""
    silence_s: float = 90.0
    """The server sends a bookmark every minute or so; silent for longer, the connection is dead."""
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    first_probe_s: float = 5.0
    """From one look for a missing kind to the next; grows to ``longest_probe_s``."""
    longest_probe_s: float = 60.0


class Restart(StrEnum):
    """Why a watch was begun anew."""

    ENDED = "ended"
    """The server ended it in time, as asked."""
    BROKEN = "broken"
    """The connection broke, was silent for too long, or the server failed."""
    EXPIRED = "expired"
    """Our version was too old."""
    MISSING = "missing"
    """The kind is not served."""
    REFUSED = "refused"
    """The API will not have it: mostly a missing verb in our role."""


RestartObserver: TypeAlias = Callable[[Kind, Restart], None]


def _ignore(kind: Kind, restart: Restart) -> None:
    """Count nothing."""


class Reflector:
    """Lists and watches one kind, everywhere or in one namespace."""

    def __init__(
        self,
        api: KubeApi,
        store: ObjectStore,
        watched: Watched,
        *,
        now: Callable[[], float],
        randomness: random.Random,
        namespace: str | None = None,
        terms: WatchTerms | None = None,
        appeared: Callable[[Kind], None] = lambda kind: None,  # noqa: ARG005 -- ignores it
        observe: RestartObserver = _ignore,
    ) -> None:
        """Make a reflector.

        Args:
            api: Where from.
            store: Where to.
            watched: Which kind.
            now: A clock that never goes back, seconds.
            randomness: Spreads pauses.
            namespace: Where to look; None for everywhere.
            terms: How long a watch lasts, and pauses.
            appeared: Told when a kind that was missing has been listed.
            observe: Counts watches begun anew.
        """
        self._api = api
        self._store = store
        self._watched = watched
        self._now = now
        self._random = randomness
        self._namespace = namespace
        self._terms = terms or WatchTerms()
        self._appeared = appeared
        self._observe = observe
        self._heard = now()
        self._version: str | None = None

    @property
    def kind(self) -> Kind:
        """What is watched."""
        return self._watched.kind

    @property
    def silent_for_s(self) -> float:
        """How long ago the API last told anything of this kind, if only that it is missing."""
        return self._now() - self._heard

    async def run(self) -> None:
        """Keep the store in step until cancelled."""
        failures = 0
        while True:
            heard_before = self._heard
            restart = await self._once()
            self._observe(self.kind, restart)
            if restart is Restart.MISSING or self._heard == heard_before:
                failures += 1
            else:
                failures = 1
            await asyncio.sleep(self._pause_s(restart, failures))

    async def _once(self) -> Restart:
        """List if need be, watch until that comes to an end, and return why it did."""
        try:
            if self._version is None:
                self._version = await self._relist()
            await self._watch(self._version)
        except KindMissing:
            self._version = None
            self._store.mark_missing(self.kind)
            self._heard = self._now()
            return Restart.MISSING
        except Expired:
            self._version = None
            return Restart.EXPIRED
        except KubeError as error:
            return Restart.BROKEN if error.retryable else self._refused(error)
        self._heard = self._now()
        return Restart.ENDED

    def _refused(self, error: KubeError) -> Restart:
        _log.warning("a kind cannot be watched", extra={"kind": str(self.kind), "detail": str(error)})
        self._version = None
        return Restart.REFUSED

    async def _relist(self) -> str:
        """List anew, page by page; return the version that a watch goes on from."""
        was_missing = self._store.is_missing(self.kind)
        seen: set[ObjectKey] = set()
        version = ""
        async for page in self._api.pages(self.kind, namespace=self._namespace, labels=self._watched.labels):
            seen.update(self._store.put(self.kind, item) for item in page.items)
            version = page.resource_version
            self._heard = self._now()
        self._store.retain(self.kind, frozenset(seen), self._namespace)
        if was_missing:
            _log.info("a kind that was missing is served now", extra={"kind": str(self.kind)})
            self._appeared(self.kind)
        return version

    async def _watch(self, version: str) -> None:
        events = self._api.watch(
            self.kind,
            resource_version=version,
            namespace=self._namespace,
            labels=self._watched.labels,
            timeout_s=self._terms.timeout_s,
            silence_s=self._terms.silence_s,
        )
        async for event in events:
            self._heard = self._now()
            if event.change is Change.DELETED:
                self._store.remove(self.kind, key_of(event.object))
            elif event.change is not Change.BOOKMARK:
                self._store.put(self.kind, event.object)
            self._version = event.object["metadata"]["resourceVersion"]

    def _pause_s(self, restart: Restart, failures: int) -> float:
        first, longest = self._terms.first_pause_s, self._terms.longest_pause_s
        if restart is Restart.MISSING:
            first, longest = self._terms.first_probe_s, self._terms.longest_probe_s
        return min(first * 2.0 ** min(failures - 1, 32), longest) * self._random.uniform(0.5, 1.0)
