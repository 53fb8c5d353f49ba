"""One writer: a Lease that a process holds while it works, and a fence before each of its writes.

The holder may write until ``renew_deadline_s`` after it *sent* its last successful renewal; another takes over once it
has seen the Lease unchanged for ``duration_s``, each by its own clock that never goes back. So the holder has stopped
before another starts, whatever their wall clocks say and however long a process was stopped. What is in flight at that
moment, the resourceVersion on each decisive write takes care of.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fairlead.clock import Clock, from_us
from fairlead_operator.platforms.kubernetes.api import KubeApi, Resource
from fairlead_operator.platforms.kubernetes.errors import AlreadyExists, Conflict, KubeError, LeaseLost, NotFound
from fairlead_operator.platforms.kubernetes.kinds import LEASE
from fairlead_operator.runtime.keys import ObjectKey

_log = logging.getLogger(__name__)

_RELEASE_DEADLINE_S = 2.0
_STOP_DEADLINE_S = 3.0


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a Lease lasts."""

    duration_s: float = 15.0
    """How long others wait after the last renewal they saw."""
    renew_deadline_s: float = 10.0
    """How long the holder writes after its last renewal."""
    retry_s: float = 2.0
    """Pause between renewals, and between looks at another's Lease."""

    def __post_init__(self) -> None:
        if not 0 < self.retry_s < self.renew_deadline_s < self.duration_s:
            raise ValueError("lease: retry < renew deadline < duration must hold")


@dataclass(frozen=True, slots=True)
class _Seen:
    """The Lease as it was last seen to change."""

    resource_version: str
    since: float


class Leader:
    """A candidate, and the leader while it holds the Lease."""

    def __init__(
        self,
        api: KubeApi,
        lease: ObjectKey,
        identity: str,
        *,
        now: Callable[[], float],
        clock: Clock,
        randomness: random.Random,
        terms: Terms | None = None,
        changed: Callable[[bool], None] = lambda leading: None,  # noqa: ARG005 -- ignores it
    ) -> None:
        """Make a candidate.

        Args:
            api: Not fenced by this leader's own fence.
            lease: Where the Lease is.
            identity: Who we are; no other process may ever have the same.
            now: A clock that never goes back and goes on while the process is stopped, seconds.
            clock: The time that is written into the Lease, for people.
            randomness: Spreads the attempts of candidates.
            terms: How long it lasts.
            changed: Told whether we lead, whenever that changes.
        """
        self._api = api
        self._lease = lease
        self._identity = identity
        self._now = now
        self._clock = clock
        self._random = randomness
        self._terms = terms or Terms()
        self._changed = changed
        self._writes_until: float | None = None
        self._seen: _Seen | None = None
        self._held: Resource | None = None

    @property
    def is_leading(self) -> bool:
        """Whether we may write at this moment."""
        return self._writes_until is not None and self._now() < self._writes_until

    def fence(self) -> None:
        """Let a write pass.

        Raises:
            LeaseLost: We are not the leader, or cannot be sure to be.
        """
        if not self.is_leading:
            raise LeaseLost(f"{self._identity} does not hold the Lease {self._lease}; nothing is written")

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait for the Lease, do ``work`` while holding it, and start over when it is lost.

        Returns when ``work`` does; the Lease is then released, as it is on cancellation and on any error of ``work``.
        """
        while True:
            await self._acquire()
            self._changed(True)
            _log.info("this process leads", extra={"lease": str(self._lease), "identity": self._identity})
            try:
                if await self._lead(work):
                    return
            finally:
                self._changed(False)
            _log.warning("the lease is lost", extra={"lease": str(self._lease), "identity": self._identity})

    async def _lead(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Do ``work`` while the Lease lasts; return whether it came to its end."""
        working = asyncio.ensure_future(work())
        renewing = asyncio.ensure_future(self._renew_while_held())
        try:
            await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            renewing.cancel()
            if not working.done():
                await _stop(working)
            await self._release()
        if renewing.done() and not renewing.cancelled() and (problem := renewing.exception()):
            raise problem
        if working.cancelled():
            return False
        try:
            await working
        except LeaseLost:  # the fence stopped it before we knew
            return False
        return True

    async def _acquire(self) -> None:
        while True:
            try:
                if await self._bounded(self._try_to_take()):
                    return
            except (KubeError, TimeoutError) as error:
                _log.info("the lease cannot be read or taken", extra={"error": type(error).__name__})
            await asyncio.sleep(self._terms.retry_s * self._random.uniform(0.8, 1.2))

    async def _renew_while_held(self) -> None:
        """Return when the Lease is lost."""
        while True:
            await asyncio.sleep(self._terms.retry_s)
            if not self.is_leading:
                return  # we were stopped for too long; what we know is old
            try:
                await self._bounded(self._renew())
            except Conflict:
                if not await self._is_still_ours():
                    self._writes_until = None
                    return
            except (KubeError, TimeoutError) as error:
                _log.warning("the lease could not be renewed", extra={"error": type(error).__name__})

    async def _is_still_ours(self) -> bool:
        """Return whether it was our own write, its answer lost, that the last one met; unknown counts as yes.

        What we may write and until when is not changed by that.
        """
        try:
            return await self._bounded(self._read_again())
        except NotFound:
            return False
        except (KubeError, TimeoutError):
            return True

    async def _read_again(self) -> bool:
        lease = await self._api.get(LEASE, self._lease)
        if lease["spec"].get("holderIdentity") != self._identity:
            return False
        self._held = lease
        return True

    async def _bounded(self, call: Awaitable[bool]) -> bool:
        left_s = self._terms.renew_deadline_s
        if self._writes_until is not None:
            left_s = min(left_s, self._writes_until - self._now())
        async with asyncio.timeout(left_s):
            return await call

    async def _try_to_take(self) -> bool:
        """Take the Lease if it is free, ours or expired; return whether it is ours now."""
        try:
            lease = await self._api.get(LEASE, self._lease)
        except NotFound:
            return await self._write(self._fresh(), transitions=0)
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity")
        if holder and not self._has_expired(lease):
            return False
        return await self._write(lease, transitions=int(spec.get("leaseTransitions") or 0) + 1)

    def _has_expired(self, lease: Resource) -> bool:
        """Return whether the Lease has not changed for as long as it lasts, as far as we have seen."""
        version = lease["metadata"]["resourceVersion"]
        if self._seen is None or self._seen.resource_version != version:
            self._seen = _Seen(version, self._now())
        lasts_s = float(lease["spec"].get("leaseDurationSeconds") or self._terms.duration_s)
        return self._now() - self._seen.since >= lasts_s

    def _fresh(self) -> Resource:
        metadata = {"name": self._lease.name, "namespace": self._lease.namespace}
        return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata}

    async def _write(self, lease: Resource, *, transitions: int) -> bool:
        time = self._time()
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._terms.duration_s)),
            "acquireTime": time,
            "renewTime": time,
            "leaseTransitions": transitions,
        }
        try:
            return await self._put({**lease, "spec": spec})
        except (AlreadyExists, Conflict):
            return False  # another was quicker

    async def _renew(self) -> bool:
        if self._held is None:
            raise LeaseLost("there is no lease to renew")
        return await self._put({**self._held, "spec": {**self._held["spec"], "renewTime": self._time()}})

    async def _put(self, lease: Resource) -> bool:
        sent = self._now()
        is_new = "resourceVersion" not in lease["metadata"]
        self._held = await (self._api.create(LEASE, lease) if is_new else self._api.replace(LEASE, lease))
        self._writes_until = sent + self._terms.renew_deadline_s
        return True

    async def _release(self) -> None:
        """Give the Lease up, so that another need not wait for its end; if that fails, it ends by itself."""
        held, was_leading = self._held, self.is_leading
        self._writes_until = self._held = self._seen = None
        if held is None or not was_leading:
            return
        with contextlib.suppress(KubeError, TimeoutError):
            async with asyncio.timeout(_RELEASE_DEADLINE_S):
                try:
                    await self._free(held)
                except Conflict:  # perhaps by a renewal of ours that was stopped before it was answered
                    lease = await self._api.get(LEASE, self._lease)
                    if lease["spec"].get("holderIdentity") == self._identity:
                        await self._free(lease)

    async def _free(self, lease: Resource) -> None:
        spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
        await self._api.replace(LEASE, {**lease, "spec": spec})

    def _time(self) -> str:
        return from_us(self._clock.now_us()).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def _stop(task: asyncio.Future[None]) -> None:
    """Cancel ``task`` and wait for its end.

    Raises:
        RuntimeError: It does not end; the process must, then.
    """
    task.cancel()
    await asyncio.wait({task}, timeout=_STOP_DEADLINE_S)
    if not task.done():
        raise RuntimeError("the work does not end when it is cancelled")
