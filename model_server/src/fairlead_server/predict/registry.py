"""Reads the registry again from time to time, so that a change under a running model is seen.

A change that would alter what the model is served is told, and nothing else: it is for people to decide about, and
what was compiled before goes on serving. Any other is handed on to be compiled anew. Reads are made in a thread of
their own and through a store of their own, so that neither predictions nor a reconnection wait for them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from feast import FeatureStore

from fairlead.contract import Contract
from fairlead.serving import RegistryReport
from fairlead_server.errors import ContractMismatch
from fairlead_server.hydrate.source import Source, source_of
from fairlead_server.hydrate.thread import WorkerThread
from fairlead_server.metrics import ModelMetrics, RegistryRead
from fairlead_server.predict.store import open_store, read_registry

_LOG = logging.getLogger(__name__)
_JITTER = 0.2
"""Share of the interval by which it varies, so that pods started together do not read together."""


@dataclass(frozen=True, slots=True)
class Registered:
    """What one read found."""

    fingerprint: str | None
    """None if the service cannot be described any more."""
    differences: tuple[str, ...] = ()
    source: Source | None = None
    """What is registered, where it fits and was read."""
    outcome: RegistryRead = RegistryRead.FITS
    """What was done about it, where it fits."""


Adopt = Callable[[Source], Awaitable[Registered]]
"""Takes over what is registered and fits, and says what came of it."""


class RegistryWatch:
    """Knows how the registered feature service compares to the contract."""

    def __init__(
        self,
        feature_store: Path,
        contract: Contract,
        metrics: ModelMetrics,
        adopt: Adopt,
        *,
        interval_s: float,
        deadline_s: float,
    ) -> None:
        """Make the watch; :meth:`start` begins reading.

        Args:
            feature_store: Folder of ``feature_store.yaml``, or such a file.
            contract: What the registered service is compared to.
            metrics: Where reads are counted.
            adopt: Told what is registered at every read but the first, while it fits.
            interval_s: Seconds between reads; 0 never reads again.
            deadline_s: Seconds after which a read that has not ended counts as failed; it is waited for all the same.
        """
        self._path = feature_store
        self._contract = contract
        self._metrics = metrics
        self._adopt = adopt
        self._interval_s = interval_s
        self._deadline_s = deadline_s
        self._thread = WorkerThread("registry")
        self._store: FeatureStore | None = None
        self._reading: asyncio.Future[Registered] | None = None
        self._running: asyncio.Task[None] | None = None
        self._failing = False
        self.report = RegistryReport()
        """How it compared when it was last read."""

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the registered service; None until it has been read, or if it is gone."""
        return self.report.fingerprint

    def start(self) -> None:
        """Read again and again, once somebody has noted a first read."""
        if self._interval_s:
            self._running = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop reading; a read that hangs is left behind."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        if self._reading is not None:
            self._reading.cancel()
        self._thread.close()

    def note(self, found: Registered) -> None:
        """Take over what a read found."""
        before = self.report
        self.report = RegistryReport.of(
            found.fingerprint, found.differences, reads=before.reads + 1, failures=before.failures
        )
        self._failing = False
        self._metrics.count_registry_read(RegistryRead.DIFFERS if found.differences else found.outcome)
        if before.reads and before.differences != self.report.differences:
            _LOG.warning(
                "registry changed fits=%s differences=%d first=%s",
                self.report.fits,
                self.report.differences_total,
                next(iter(self.report.differences), ""),
            )

    async def _run(self) -> None:
        while True:
            jitter = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 -- jitter is no secret
            await asyncio.sleep(self._interval_s * jitter)
            if self.report.reads:  # until then whoever connects is reading
                await self._refresh()

    async def _refresh(self) -> None:
        if self._reading is None:
            self._reading = self._thread.submit(self._read)
        done, _ = await asyncio.wait({self._reading}, timeout=self._deadline_s)
        if not done:
            self._note_failure(f"no answer within {self._deadline_s:g} s")
            return
        reading, self._reading = self._reading, None
        try:
            found = reading.result()
            if found.source is not None:
                found = replace(await self._adopt(found.source), fingerprint=found.fingerprint)
        except Exception as error:  # noqa: BLE001 -- whatever a registry raises, it is read again
            self._note_failure(type(error).__name__)
        else:
            self.note(found)

    def _read(self) -> Registered:
        if self._store is None:
            self._store = open_store(self._path)
        try:
            read_registry(self._store, self._contract)
            source = source_of(self._store, self._contract)
            # Once more, for what is taken over must fit, and may have been changed in between.
            return Registered(read_registry(self._store, self._contract).fingerprint, source=source)
        except ContractMismatch as error:
            return mismatch(error)

    def _note_failure(self, reason: str) -> None:
        self.report = self.report.model_copy(update={"failures": self.report.failures + 1})
        self._metrics.count_registry_read(RegistryRead.FAILED)
        if not self._failing:
            _LOG.warning("registry not read reason=%s", reason)
        self._failing = True


def mismatch(error: ContractMismatch) -> Registered:
    """Return what a registry that does not fit was found to be."""
    return Registered(error.registered, error.differences or (str(error),))
