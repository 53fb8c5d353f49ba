"""From settings to a model that is served: loaded, warmed up, and reported on."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
from typing import Any

from fairlead.clock import Clock
from fairlead.features import light_feast
from fairlead_server.exposure.assemble import feedback_of
from fairlead_server.exposure.reporter import Pace, Reporter
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.settings import PredictorSettings
from fairlead_server.protocol.service import Served, Service
from fairlead_server.settings import Settings

_LOG = logging.getLogger(__name__)


async def load(settings: Settings, clock: Clock, metrics: ServerMetrics, service: Service) -> Reporter:
    """Load the model and serve it from now on.

    Args:
        settings: What the command line says.
        clock: What ages of features are measured by.
        metrics: The process' metrics.
        service: What answers with the model once it is loaded.

    Returns:
        What reports on the model's requests, started.

    Raises:
        StartupError: The model cannot be served.
    """
    light_feast.install()
    # In a thread, so that probes are answered while Feast is imported.
    loader: Any = await asyncio.to_thread(importlib.import_module, "fairlead_server.predict.load")
    predictor = await loader.load(predictor_settings(settings), clock=clock, metrics=metrics)
    exposures, reporter = feedback_of(
        predictor,
        clock,
        serving_dir=settings.serving_dir,
        spool_dir=settings.spool_dir,
        spool_bytes=settings.spool_bytes,
        pace=Pace(interval_s=settings.report_interval_s),
    )
    loader.freeze_memory()
    gc.enable()  # off since the process started
    service.serve(Served.of(predictor, exposures, lambda: reporter.report))
    reporter.start()
    _LOG.info(
        "loaded model=%s version=%s variant=%s revision=%s digest=%s ready=%s degraded=%s",
        predictor.model_name,
        predictor.version,
        predictor.variant,
        predictor.revision,
        predictor.model_digest,
        predictor.ready,
        predictor.degraded,
    )
    return reporter


def predictor_settings(settings: Settings) -> PredictorSettings:
    """Return what the predictor is started with."""
    return PredictorSettings(
        model=settings.model,
        feature_store=settings.feature_store,
        model_name=settings.model_name,
        model_digest=settings.model_digest,
        variant=settings.variant,
        revision=settings.revision,
        hydration=settings.hydration,
        startup_deadline_s=settings.startup_deadline_s,
        registry_refresh_s=settings.registry_refresh_s,
    )
