"""Loads a model: verified, warmed up, and connected to its feature store."""

from __future__ import annotations

import gc
import logging

from fairlead.clock import Clock
from fairlead.contract import Contract
from fairlead.policy import Hydration
from fairlead_server.hydrate.plan import compile_plan
from fairlead_server.hydrate.thread import WorkerThread
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.binding import InputRules
from fairlead_server.predict.connection import FeatureConnection
from fairlead_server.predict.predictor import Predictor
from fairlead_server.predict.session import open_session, read_model
from fairlead_server.predict.settings import PredictorSettings

_LOG = logging.getLogger(__name__)


async def load(settings: PredictorSettings, *, clock: Clock, metrics: ServerMetrics) -> Predictor:
    """Load a model and connect to its feature store.

    Waits for registry and online store up to the start-up deadline. If they are still away, the predictor is ready
    and degraded where every policy allows that, else not ready; it goes on trying and recovers by itself.

    Args:
        settings: What to load.
        clock: What ages of features are measured by.
        metrics: The process' metrics.

    Raises:
        ModelFileError: The file is not the model that was asked for, or not one that can be served.
        ContractMismatch: Its contract does not fit the registry; the message names the feature.
        StartupError: The feature store's configuration cannot be served from.
    """
    thread = WorkerThread("large-batches")
    model = read_model(settings.model, settings.model_digest)
    session, contract = open_session(model, str(settings.model), thread)
    await session.warm_up()
    plan = compile_plan(contract, settings.hydration)
    _warn_of_unknown_views(contract, settings.hydration)
    name = settings.model_name or contract.model
    of_model = metrics.of(model=name, variant=settings.variant)
    connection = FeatureConnection(settings, contract, plan, clock, of_model)
    predictor = Predictor(
        contract=contract,
        model_name=name,
        model_digest=model.digest,
        variant=settings.variant,
        revision=settings.revision,
        metrics=of_model,
        rules=InputRules.of(contract, plan, settings.rows_limit),
        session=session,
        connection=connection,
    )
    of_model.watch_degraded(lambda: predictor.degraded)
    try:
        await connection.start()
    except BaseException:
        await predictor.close()
        raise
    return predictor


def _warn_of_unknown_views(contract: Contract, hydration: Hydration) -> None:
    """Say which ages are of no stored view; a deployment may set them for another variant, so they are not refused."""
    views = sorted({feature.view for feature in contract.features if not feature.on_demand})
    unknown = sorted(hydration.max_age_s.keys() - set(views))
    if unknown:
        _LOG.warning(
            "hydration.max_age_s names views that the model does not read unknown=%s views=%s",
            ",".join(unknown),
            ",".join(views),
        )


def freeze_memory() -> None:
    """Move everything that is loaded out of the garbage collector's sight; call once, after warm-up.

    Feast, KServe and ONNX Runtime leave 270,000 objects that a full collection would walk (100 ms) now and then.
    """
    gc.collect()
    gc.freeze()
