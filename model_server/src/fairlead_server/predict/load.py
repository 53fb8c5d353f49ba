"""Loads a model: verified, warmed up, and connected to its feature store if it has one."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from fairlead.clock import Clock
from fairlead.contract import Contract
from fairlead.policy import Hydration
from fairlead_server.hydrate.plan import compile_plan
from fairlead_server.hydrate.shared import Shared
from fairlead_server.hydrate.thread import WorkerThread
from fairlead_server.metrics import ModelMetrics, ServerMetrics
from fairlead_server.predict.binding import GraphRules, InputRules
from fairlead_server.predict.executor import LongRuns
from fairlead_server.predict.predictor import Predictor
from fairlead_server.predict.session import Session, open_session, read_model
from fairlead_server.predict.settings import PredictorSettings
from fairlead_server.predict.signature import TensorSpec
from fairlead_server.prediction_log.settings import Logged, LogSettings

if TYPE_CHECKING:
    from fairlead_server.predict.connection import FeatureConnection
    from fairlead_server.prediction_log.log import PredictionLog

_LOG = logging.getLogger(__name__)
_PLAIN_VERSION = "1"
_FULL_COLLECTIONS_EVERY: Final = 100
"""Collections of the middle generation."""


async def load(
    settings: PredictorSettings,
    *,
    clock: Clock,
    metrics: ServerMetrics,
    long_runs: LongRuns | None = None,
    shared: Shared | None = None,
) -> Predictor:
    """Load a model and connect to its feature store.

    Waits for registry and online store up to the start-up deadline. If they are still away, the predictor is ready
    and degraded where every policy allows that, else not ready; it goes on trying and recovers by itself.

    Args:
        settings: What to load.
        clock: What ages of features are measured by.
        metrics: The process' metrics.
        long_runs: Threads for long runs; None to run everything on the event loop's thread.
        shared: What the process' models hold together, such as connections to a store; None for a model by itself.

    Raises:
        ModelFileError: The file is not the model that was asked for, or not one that can be served; without a
            feature store a model needs no contract.
        ContractMismatch: Its contract does not fit the registry; the message names the feature.
        StartupError: The feature store's configuration cannot be served from.
    """
    thread = WorkerThread("large-batches")
    may_be_plain = settings.may_be_plain or settings.feature_store is None

    def open_file() -> tuple[Session, Contract | None, str]:
        model = read_model(settings.model, settings.model_digest)
        return *open_session(model, str(settings.model), thread, may_be_plain=may_be_plain), model.digest

    session, contract, digest = await asyncio.to_thread(open_file)
    if contract is None:
        predictor = _plain(settings, session, digest, metrics, long_runs)
        await asyncio.to_thread(predictor.batch.warm_up)
        return predictor
    plan = compile_plan(contract, settings.hydration)
    _warn_of_unknown_views(contract, settings.hydration)
    name = settings.model_name or contract.model
    of_model = metrics.of(model=name, variant=settings.variant)
    connection: FeatureConnection | None = None
    if settings.feature_store is None:
        _LOG.warning("no feature store was named: the model takes full requests only model=%s", name)
    else:
        # Feast takes seconds to import, and only this needs it.
        feast: Any = await asyncio.to_thread(importlib.import_module, "fairlead_server.predict.connection")
        connection = feast.FeatureConnection(
            settings,
            settings.feature_store,
            contract,
            plan,
            clock,
            metrics=of_model,
            shared=Shared() if shared is None else shared,
        )
    version = settings.model_version or contract.version
    log: PredictionLog | None = None
    if connection is not None and settings.prediction_log is not None:
        logged = Logged(contract, settings.hydration, name, version, settings.variant, settings.revision)
        log = await asyncio.to_thread(_open_log, settings.prediction_log, logged, of_model)
    predictor = Predictor(
        contract=contract,
        model_name=name,
        version=version,
        model_digest=digest,
        variant=settings.variant,
        revision=settings.revision,
        metrics=of_model,
        rules=InputRules.of(contract, plan, settings.rows_limit),
        session=session,
        connection=connection,
        log=log,
        long_runs=long_runs,
    )
    await asyncio.to_thread(predictor.batch.warm_up)
    try:
        if connection is not None:
            await connection.start()
    except BaseException:
        await predictor.close()
        raise
    of_model.watch_degraded(lambda: predictor.degraded)
    if connection is not None:
        of_model.watch_hydration(connection.watched)
    return predictor


def _open_log(settings: LogSettings, logged: Logged, metrics: ModelMetrics) -> PredictionLog:
    """Return the log of a model; imports Arrow, which only this needs."""
    log: Any = importlib.import_module("fairlead_server.prediction_log.log")
    opened: PredictionLog = log.PredictionLog.of(settings, logged, metrics)
    return opened


def _plain(
    settings: PredictorSettings, session: Session, digest: str, metrics: ServerMetrics, long_runs: LongRuns | None
) -> Predictor:
    """Return the predictor of a model without a contract, called by its file's name unless told otherwise."""
    name = settings.model_name or settings.model.stem
    signature = session.signature
    _LOG.info(
        "plain ONNX model model=%s inputs=%s outputs=%s batched=%s",
        name,
        _shown(signature.inputs),
        _shown(signature.outputs),
        signature.batched,
    )
    return Predictor(
        contract=None,
        model_name=name,
        version=settings.model_version or _PLAIN_VERSION,
        model_digest=digest,
        variant=settings.variant,
        revision=settings.revision,
        metrics=metrics.of(model=name, variant=settings.variant),
        rules=GraphRules(signature, settings.rows_limit),
        session=session,
        connection=None,
        long_runs=long_runs,
    )


def _shown(specs: Mapping[str, TensorSpec]) -> str:
    return ",".join(f"{spec.name}:{spec.datatype}{list(spec.shape)}".replace(" ", "") for spec in specs.values())


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

    Feast, KServe and ONNX Runtime leave 270,000 objects that a full collection would walk (100 ms) now and then. What
    a server makes later and keeps, units of experiments above all, lives for seconds at least: full collections are
    made a tenth as often as is usual, for each of them holds up all requests for tens of milliseconds.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _FULL_COLLECTIONS_EVERY)
