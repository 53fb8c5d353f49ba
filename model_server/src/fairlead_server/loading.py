"""From settings to models that are served: loaded, warmed up, and reported on."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fairlead.clock import Clock
from fairlead.features import light_feast
from fairlead_server.exposure.assemble import feedback_of, primary_output
from fairlead_server.exposure.exposures import Exposures
from fairlead_server.exposure.reporter import Pace, Reporter
from fairlead_server.hydrate.shared import Shared
from fairlead_server.metrics import ServerMetrics
from fairlead_server.models import ModelSet
from fairlead_server.predict.executor import Bounds, LongRuns, usable_cores
from fairlead_server.predict.repository import ModelPlace
from fairlead_server.predict.settings import PredictorSettings
from fairlead_server.prediction_log.settings import LogSettings
from fairlead_server.protocol.service import Served, Service
from fairlead_server.settings import Settings

if TYPE_CHECKING:
    from fairlead_server.predict.predictor import Predictor

_LOG = logging.getLogger(__name__)


class Reporting(Protocol):
    """What has still to be reported when nothing is answered any more."""

    async def close(self, deadline_s: float) -> None:
        """Report it, within ``deadline_s``."""


async def load(settings: Settings, clock: Clock, metrics: ServerMetrics, service: Service) -> Reporting:
    """Load the models and serve them from now on.

    Args:
        settings: What the command line says.
        clock: What ages of features are measured by.
        metrics: The process' metrics.
        service: What answers with them once they are loaded.

    Returns:
        What reports on their requests, started.

    Raises:
        StartupError: The model cannot be served; of several, none could.
    """
    light_feast.install()
    # In a thread, so that probes are answered while Feast is imported.
    loader: Any = await asyncio.to_thread(importlib.import_module, "fairlead_server.predict.load")
    opener = _Opener(settings, clock, metrics, loader)
    if settings.model_repository is None:
        served = await opener.open_only()
        loader.freeze_memory()
        gc.enable()  # off since the process started
        service.serve(served)
        return opener
    gc.enable()
    models = ModelSet(
        settings.model_repository,
        service,
        opener,
        latest_only=settings.model_versions == "latest",
        drain_deadline_s=settings.drain_deadline_s,
    )
    if settings.model_control == "explicit":
        service.control = models
    await models.start(settings.wanted_models)
    loader.freeze_memory()
    return models


class _Opener:
    """Loads models, each with what judges and reports on its requests; the latter outlives a reload."""

    def __init__(self, settings: Settings, clock: Clock, metrics: ServerMetrics, loader: Any) -> None:
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._loader = loader
        self._long_runs = LongRuns(
            Bounds(
                threads=settings.long_run_threads or max(1, usable_cores() // settings.workers),
                long_run_s=settings.long_run_ms / 1000,
                queue_deadline_s=settings.queue_deadline_s,
            )
        )
        self._shared = Shared()
        self._feedback: dict[str, tuple[Exposures, Reporter]] = {}

    async def open_only(self) -> Served:
        """Load the only model.

        Raises:
            StartupError: It cannot be served.
        """
        return await self._open(predictor_settings(self._settings), self._settings.spool_dir)

    async def open(self, place: ModelPlace) -> Served:
        """Load a model of the repository; see ``Opener``."""
        settings = replace(
            predictor_settings(self._settings),
            model=place.path,
            model_name=place.name,
            model_version=place.version,
            may_be_plain=True,
        )
        spool_dir = self._settings.spool_dir
        return await self._open(settings, None if spool_dir is None else spool_dir / place.name)

    async def _open(self, settings: PredictorSettings, spool_dir: Path | None) -> Served:
        predictor: Predictor = await self._loader.load(
            settings, clock=self._clock, metrics=self._metrics, long_runs=self._long_runs, shared=self._shared
        )
        name = predictor.model_name
        if name not in self._feedback:
            self._feedback[name] = self._feedback_of(predictor, spool_dir)
        exposures, reporter = self._feedback[name]
        _LOG.info(
            "loaded model=%s version=%s variant=%s revision=%s digest=%s ready=%s degraded=%s",
            name,
            predictor.version,
            predictor.variant,
            predictor.revision,
            predictor.model_digest,
            predictor.ready,
            predictor.degraded,
        )
        exposures = replace(exposures, output=primary_output(predictor))
        return Served.of(predictor, exposures, lambda: reporter.report)

    def _feedback_of(self, predictor: Predictor, spool_dir: Path | None) -> tuple[Exposures, Reporter]:
        exposures, reporter = feedback_of(
            predictor,
            self._clock,
            serving_dir=self._settings.serving_dir,
            spool_dir=spool_dir,
            spool_bytes=self._settings.spool_bytes,
            pace=Pace(interval_s=self._settings.report_interval_s),
        )
        reporter.start()
        return exposures, reporter

    async def forget(self, name: str) -> None:
        """Report what is left to report on a model that is no longer served."""
        exposures, reporter = self._feedback.pop(name, (None, None))
        if reporter is not None and exposures is not None:
            await reporter.close(self._settings.flush_deadline_s)
            if name not in self._feedback:
                exposures.metrics.unwatch_feedback()

    async def close(self, deadline_s: float) -> None:
        """Report what is left to report, within ``deadline_s``."""
        await asyncio.gather(*(reporter.close(deadline_s) for _, reporter in self._feedback.values()))
        self._long_runs.close()


def predictor_settings(settings: Settings) -> PredictorSettings:
    """Return what a predictor is started with."""
    return PredictorSettings(
        model=settings.model or Path(),
        feature_store=settings.feature_store,
        model_name=settings.model_name,
        model_digest=settings.model_digest,
        variant=settings.variant,
        revision=settings.revision,
        hydration=settings.hydration,
        startup_deadline_s=settings.startup_deadline_s,
        registry_refresh_s=settings.registry_refresh_s,
        prediction_log=_log_settings(settings),
    )


def _log_settings(settings: Settings) -> LogSettings | None:
    if settings.prediction_log is None or not settings.prediction_log_sample:
        return None
    return LogSettings(
        folder=settings.prediction_log,
        sample=settings.prediction_log_sample,
        limit_bytes=settings.prediction_log_bytes,
        with_keys=settings.prediction_log_keys == "kept",
        roll_s=settings.prediction_log_roll_s,
    )
