"""The way to a feature store that may be away: waited for at start, tried again until it is there."""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from dataclasses import dataclass
from pathlib import Path

from feast import FeatureStore

from fairlead.clock import Clock
from fairlead.contract import Contract
from fairlead.features.service import ServiceDescription
from fairlead_server.errors import ContractMismatch, StartupError
from fairlead_server.hydrate.choice import back_end_of
from fairlead_server.hydrate.hydrator import Hydrator, StoreAccess
from fairlead_server.hydrate.observed import Watched
from fairlead_server.hydrate.plan import HydrationPlan
from fairlead_server.hydrate.policy import LastGood
from fairlead_server.hydrate.shared import Lease, Shared
from fairlead_server.hydrate.source import Source, source_of
from fairlead_server.metrics import ModelMetrics, RegistryRead
from fairlead_server.predict.registry import Registered, RegistryWatch, mismatch
from fairlead_server.predict.settings import PredictorSettings
from fairlead_server.predict.store import (
    OpenStore,
    StoreNotReachable,
    check_online_store,
    configuration_of,
    read_registry,
)

_LOG = logging.getLogger(__name__)
_STARTING = "starting"
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_OPEN_TIMEOUT_S = 2.0
"""After so long a store that is being opened is reported as away; opening it goes on."""


_DRAIN_DEADLINES = 3
"""Deadlines after which reads for a plan that is not in force any more are given up."""


@dataclass(frozen=True, slots=True)
class _Opened:
    registered: ServiceDescription
    source: Source


class FeatureConnection:
    """Holds the hydrator in force: one without a store until the store answers, then one with it."""

    def __init__(
        self,
        settings: PredictorSettings,
        feature_store: Path,
        contract: Contract,
        plan: HydrationPlan,
        clock: Clock,
        *,
        metrics: ModelMetrics,
        shared: Shared,
    ) -> None:
        """Make the connection; :meth:`start` opens it.

        Args:
            settings: How long to wait for the feature store.
            feature_store: Folder of ``feature_store.yaml``, or such a file.
            contract: What the registry must fit.
            plan: What is hydrated.
            clock: What ages are measured by.
            metrics: Where reads and states are counted.
            shared: What the process' models hold together.
        """
        self._settings = settings
        self._feature_store = feature_store
        self._contract = contract
        self._plan = plan
        self._clock = clock
        self._metrics = metrics
        self._last_good = LastGood(settings.last_good_rows)
        self._shared = shared
        self._lease: Lease[OpenStore] | None = None
        self._source: Source | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._connecting: asyncio.Task[None] | None = None
        self._opening: asyncio.Future[_Opened] | None = None
        self._logged: set[str] = set()
        self._connected = False
        self._failure: StartupError | None = None
        self._started = False
        self.reason = _STARTING
        """Why the store is not connected, with what to do."""
        self.registry = RegistryWatch(
            feature_store,
            contract,
            metrics,
            self._adopt,
            interval_s=settings.registry_refresh_s,
            deadline_s=settings.registry_deadline_s,
        )
        """How the registry compares to the contract."""
        self.hydrator = self._hydrator(None)
        """The hydrator in force."""
        for view in plan.views:
            if view.max_age_us is not None:
                metrics.limit_age(view.name, view.max_age_us / 1e6)

    @property
    def ready(self) -> bool:
        """Whether requests may be answered."""
        return self._connected or (self._started and self._failure is None and self._plan.answers_without_store)

    @property
    def degraded(self) -> bool:
        """Whether the store is not there at the moment."""
        return not self._connected or self.hydrator.failing

    @property
    def watched(self) -> Watched:
        """What is asked at every scrape."""
        return Watched(
            drifted=lambda: self.registry.report.fits is False, circuit_open=lambda: self.hydrator.circuit_open
        )

    async def start(self) -> None:
        """Connect; after the start-up deadline go on trying in the background.

        Raises:
            StartupError: The store answers, and the contract does not fit it or it is not fit for serving.
        """
        self._lease = self._shared.take(
            configuration_of(self._feature_store), lambda: OpenStore(self._feature_store), OpenStore.close
        )
        self.registry.start()
        self._connecting = asyncio.create_task(self._connect(self._lease.what))
        await asyncio.wait({self._connecting}, timeout=self._settings.startup_deadline_s)
        self._started = True
        if self._connecting.done():
            self._connecting.result()
            return
        if self.reason == _STARTING:
            self.reason = _no_answer_within(self._settings.startup_deadline_s)
        self._connecting.add_done_callback(self._note_failure)
        _LOG.warning("feature store is away reason=%s degraded_answers=%s", self.reason, self.ready)

    async def close(self) -> None:
        """Stop trying, and leave the store."""
        await self.registry.close()
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        if self._opening is not None:
            self._opening.cancel()
        for task in self._retiring:
            task.cancel()
        if self._retiring:
            await asyncio.wait(self._retiring)
        await self.hydrator.close()
        if self._lease is not None:
            await self._lease.close()

    async def _connect(self, store: OpenStore) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._try(store)
            except StartupError:
                raise
            except Exception as error:  # noqa: BLE001 -- whatever a store raises, it is tried again
                self._note_attempt(error)
            else:
                return
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 -- jitter is no secret
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _try(self, store: OpenStore) -> None:
        opened = await self._open(store)
        self.registry.note(Registered(opened.registered.fingerprint))
        # On-demand views need the registry alone, so they are right again before the online store is back.
        self.hydrator = self._hydrator(self._access(store, opened.source))
        if not await self.hydrator.answers():
            await self.hydrator.close()
            raise StoreNotReachable("the online store does not answer")
        self._connected = True
        self._source = opened.source
        self.reason = "connected"
        self._logged.clear()
        _LOG.info("feature store connected registry=%s", self.registry.fingerprint)

    async def _adopt(self, source: Source) -> Registered:
        """Compile what is registered now, and put it in force; a change of what is read is left to a restart."""
        before = self._source
        if before is None or self._lease is None or source.is_as(before):
            return Registered(None)
        moved = tuple(source.moved_from(before))
        if moved:
            return Registered(None, moved)
        hydrator = self._hydrator(self._access(self._lease.what, source))
        answers = False
        try:
            answers = await hydrator.answers()
        finally:
            if not answers:
                await hydrator.close()
        if not answers:
            return Registered(None, outcome=RegistryRead.POSTPONED)
        retired, self.hydrator, self._source = self.hydrator, hydrator, source
        task = asyncio.create_task(self._retire(retired))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        _LOG.info("plan compiled anew registry=%s", self.registry.fingerprint)
        return Registered(None, outcome=RegistryRead.SWAPPED)

    async def _retire(self, hydrator: Hydrator) -> None:
        """Close a hydrator once nobody waits for it any more."""
        try:
            async with asyncio.timeout(_DRAIN_DEADLINES * self._settings.hydration.deadline_s):
                await hydrator.drain()
        except TimeoutError:
            _LOG.info("reads of a former plan are given up")
        finally:
            await hydrator.close()

    def _access(self, store: OpenStore, source: Source) -> StoreAccess:
        deadline_s = self._settings.hydration.deadline_s
        back_end = back_end_of(store.store, self._plan, source, store.reads, deadline_s, shared=self._shared)
        for view in self._plan.views:
            self._metrics.note_reader(view.name, back_end.name)
        for name, function in source.functions.items():
            self._metrics.note_reader(name, function.reader)
            if function.reader == "feast":
                _LOG.info("on-demand view is computed through feast view=%s", name)
        return StoreAccess(back_end, source.functions)

    def _hydrator(self, access: StoreAccess | None) -> Hydrator:
        return Hydrator(
            self._plan,
            access,
            self._clock,
            self._last_good,
            self._metrics,
            deadline_s=self._settings.hydration.deadline_s,
        )

    async def _open(self, store: OpenStore) -> _Opened:
        """Open the store in a thread; a call that hangs there is waited for again, not made twice."""
        if self._opening is None:
            self._opening = store.opener.submit(lambda: _open(store.store, self._contract))
        done, _ = await asyncio.wait({self._opening}, timeout=_OPEN_TIMEOUT_S)
        if not done:
            raise StoreNotReachable(_no_answer_within(_OPEN_TIMEOUT_S))
        opened, self._opening = self._opening, None
        return opened.result()

    def _note_attempt(self, error: Exception) -> None:
        kind = type(error).__name__
        foreseen = isinstance(error, StoreNotReachable)
        self.reason = str(error) if foreseen else f"the feature store cannot be opened ({kind}); see the server's log"
        self._metrics.count_connection_failure(kind)
        if self.reason in self._logged:
            return
        self._logged.add(self.reason)
        if foreseen:
            _LOG.warning("feature store not reachable, trying again reason=%s", self.reason)
            return
        place = traceback.extract_tb(error.__traceback__)[-1]
        _LOG.error("feature store fails, trying again error=%s at=%s:%s", kind, Path(place.filename).name, place.lineno)

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, StartupError):
            self._failure = error
            if isinstance(error, ContractMismatch):
                self.registry.note(mismatch(error))
            self.reason = str(error)
            _LOG.error("feature store does not fit reason=%s", error)


def _open(store: FeatureStore, contract: Contract) -> _Opened:
    registered = read_registry(store, contract)
    check_online_store(store)
    try:
        return _Opened(registered, source_of(store, contract))
    except StartupError:
        raise
    except Exception as error:
        raise StoreNotReachable(f"the registry does not answer ({type(error).__name__})") from error


def _no_answer_within(wait_s: float) -> str:
    return f"the feature store has not answered within {wait_s:g} s; check its registry"
