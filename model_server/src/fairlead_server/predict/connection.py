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
from fairlead_server.hydrate.plan import HydrationPlan
from fairlead_server.hydrate.policy import LastGood
from fairlead_server.hydrate.source import Source, source_of
from fairlead_server.hydrate.thread import WorkerThread
from fairlead_server.metrics import ModelMetrics
from fairlead_server.predict.registry import Registered, RegistryWatch, mismatch
from fairlead_server.predict.settings import PredictorSettings
from fairlead_server.predict.store import StoreNotReachable, check_online_store, open_store, read_registry

_LOG = logging.getLogger(__name__)
_STARTING = "starting"
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_OPEN_TIMEOUT_S = 2.0
"""After so long a store that is being opened is reported as away; opening it goes on."""


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
    ) -> None:
        """Make the connection; :meth:`start` opens it.

        Args:
            settings: How long to wait for the feature store.
            feature_store: Folder of ``feature_store.yaml``, or such a file.
            contract: What the registry must fit.
            plan: What is hydrated.
            clock: What ages are measured by.
            metrics: Where reads and states are counted.
        """
        self._settings = settings
        self._feature_store = feature_store
        self._contract = contract
        self._plan = plan
        self._clock = clock
        self._metrics = metrics
        self._last_good = LastGood(settings.last_good_rows)
        self._thread = WorkerThread("feature-store")
        # A thread of its own: a read that hangs in the online store must not look like a registry that does.
        self._opener = WorkerThread("feature-store-opener")
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
            interval_s=settings.registry_refresh_s,
            deadline_s=settings.registry_deadline_s,
        )
        """How the registry compares to the contract."""
        self.hydrator = self._hydrator(None)
        """The hydrator in force."""

    @property
    def ready(self) -> bool:
        """Whether requests may be answered."""
        return self._connected or (self._started and self._failure is None and self._plan.answers_without_store)

    @property
    def degraded(self) -> bool:
        """Whether the store is not there at the moment."""
        return not self._connected or self.hydrator.failing

    async def start(self) -> None:
        """Connect; after the start-up deadline go on trying in the background.

        Raises:
            StartupError: The store answers, and the contract does not fit it or it is not fit for serving.
        """
        store = open_store(self._feature_store)
        self.registry.start()
        self._connecting = asyncio.create_task(self._connect(store))
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
        self._opener.close()
        self._thread.close()
        await self.hydrator.close()

    async def _connect(self, store: FeatureStore) -> None:
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

    async def _try(self, store: FeatureStore) -> None:
        opened = await self._open(store)
        self.registry.note(Registered(opened.registered.fingerprint))
        deadline_s = self._settings.hydration.deadline_s
        back_end = back_end_of(store, self._plan, opened.source, self._thread, deadline_s)
        # On-demand views need the registry alone, so they are right again before the online store is back.
        self.hydrator = self._hydrator(StoreAccess(back_end, opened.source.functions))
        if not await self.hydrator.answers():
            await self.hydrator.close()
            raise StoreNotReachable("the online store does not answer")
        self._connected = True
        self.reason = "connected"
        self._logged.clear()
        _LOG.info("feature store connected registry=%s reader=%s", self.registry.fingerprint, back_end.name)

    def _hydrator(self, access: StoreAccess | None) -> Hydrator:
        return Hydrator(
            self._plan,
            access,
            self._clock,
            self._last_good,
            self._metrics,
            deadline_s=self._settings.hydration.deadline_s,
        )

    async def _open(self, store: FeatureStore) -> _Opened:
        """Open the store in a thread; a call that hangs there is waited for again, not made twice."""
        if self._opening is None:
            self._opening = self._opener.submit(lambda: _open(store, self._contract))
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
