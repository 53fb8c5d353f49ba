"""One model, ready to answer: bind, hydrate, infer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from fairlead.contract import Contract
from fairlead.serving import RegistryReport, ServerReport
from fairlead_server.errors import InvalidRequest, NotReady, RequestError
from fairlead_server.metrics import Count, ModelMetrics, Stage, StageTimer
from fairlead_server.predict.batch import Batch, Columns
from fairlead_server.predict.binding import FullInputs, GraphRules, InputRules, KeyInputs, bind
from fairlead_server.predict.executor import LongRuns
from fairlead_server.predict.request import PredictRequest, PredictResponse
from fairlead_server.predict.session import Session
from fairlead_server.predict.signature import Signature

if TYPE_CHECKING:
    # These import feast, which not every model needs.
    from fairlead_server.hydrate.hydrator import Hydrated
    from fairlead_server.predict.connection import FeatureConnection
    from fairlead_server.prediction_log.log import PredictionLog

Done = Callable[[PredictResponse | RequestError], None]
"""Is told a request's answer, or why there is none; called exactly once."""


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What the model was packaged with, and what is registered."""

    contract: str | None
    """None for a plain ONNX model."""
    registry: str | None
    """None until the registry has been read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """A loaded model; made by :func:`fairlead_server.predict.load.load`."""

    contract: Contract | None
    """None for a plain ONNX model."""
    model_name: str
    """What clients call it."""
    version: str
    model_digest: str
    variant: str
    revision: str
    metrics: ModelMetrics
    rules: InputRules | GraphRules
    session: Session
    connection: FeatureConnection | None
    """None for a model that is served without a feature store."""
    log: PredictionLog | None = None
    """Where a sample of hydrated requests is logged; None for nowhere."""
    long_runs: LongRuns | None = None
    """Threads for long runs; None to run everything on the event loop's thread."""
    batch: Batch = field(init=False)
    """Where rows wait for the turn's run."""
    _hydrating: Count = field(init=False, default_factory=Count)
    """Requests that wait for their features."""

    def __post_init__(self) -> None:
        """Make the batch of this session."""
        batch = Batch(self.session, self.metrics, joint=self.signature.batched, long_runs=self.long_runs)
        object.__setattr__(self, "batch", batch)

    @property
    def signature(self) -> Signature:
        """What the graph takes and gives."""
        return self.session.signature

    @property
    def rows_limit(self) -> int:
        """Rows of one request beyond which it is refused."""
        return self.rules.rows_limit

    @property
    def ready(self) -> bool:
        """Whether requests are answered: the registry fits, or degraded answers are allowed."""
        return self.connection is None or self.connection.ready

    def may_take_long(self, request: PredictRequest) -> bool:
        """Return whether a request may have to wait for a thread, and so be given up meanwhile."""
        return request.rows > self.batch.cost.units_on_loop or not self.signature.batched

    @property
    def busy(self) -> bool:
        """Whether any request has still to be answered."""
        return self._hydrating.value > 0 or self.batch.busy

    @property
    def degraded(self) -> bool:
        """Whether answers are made without the online store at the moment."""
        return self.connection is not None and self.connection.degraded

    @property
    def not_ready_reason(self) -> str | None:
        """Why the predictor is not ready, with what to do; None if it is."""
        return None if self.connection is None or self.connection.ready else self.connection.reason

    @property
    def fingerprints(self) -> Fingerprints:
        """Fingerprints of the feature service: packaged and registered."""
        return Fingerprints(
            None if self.contract is None else self.contract.fingerprint,
            None if self.connection is None else self.connection.registry.fingerprint,
        )

    @property
    def report(self) -> ServerReport:
        """What this model tells about itself; whether the process takes requests is for its service to add."""
        reason, contract = self.not_ready_reason, self.contract
        return ServerReport(
            model_digest=self.model_digest,
            contract_digest=None if contract is None else contract.digest,
            contract_fingerprint=None if contract is None else contract.fingerprint,
            feature_service="" if contract is None else contract.feature_service,
            variant=self.variant,
            revision=self.revision,
            ready=reason is None,
            not_ready_reason=reason or "",
            degraded=self.degraded,
            registry=RegistryReport() if self.connection is None else self.connection.registry.report,
        )

    def submit(self, request: PredictRequest, timer: StageTimer, done: Done) -> None:
        """Answer one request, in a later callback of the event loop.

        Args:
            request: Decoded, not checked.
            timer: Its stage hydrate (binding included) is recorded; infer is, once, for all that share the run.
            done: Told the answer, or the failure.

        Raises:
            RequestError: One of its subclasses; the request is refused at once, and ``done`` never told.
        """
        connection = self.connection
        if connection is not None and not connection.ready:
            raise NotReady(f"model {self.model_name} is not ready: {connection.reason}")
        match bind(self.rules, request):
            case FullInputs(columns):
                timer.lap(Stage.HYDRATE)
                settle = partial(_settle_full, timer, columns, done)
                self.batch.submit(columns, request.rows, request.deadline_s, settle, request.gone)
            case KeyInputs(columns):
                if connection is None:
                    raise InvalidRequest(
                        "this server has no feature store, and takes full requests only: "
                        f"send {', '.join(self.signature.inputs)}, or start it with --feature-store"
                    )
                settle = partial(self._settle_hydrated, request, columns, timer, done)
                connection.hydrator.submit(columns, request.rows, settle)
                self._hydrating.value += 1

    async def predict(self, request: PredictRequest, timer: StageTimer) -> PredictResponse:
        """Answer one request; :meth:`submit` for whoever awaits.

        Raises:
            RequestError: One of its subclasses; the request is refused, or failed.
        """
        answered: asyncio.Future[PredictResponse] = asyncio.get_running_loop().create_future()
        self.submit(request, timer, partial(_settle, answered))
        return await answered

    def _settle_hydrated(
        self, request: PredictRequest, keys: Columns, timer: StageTimer, done: Done, hydrated: Hydrated | RequestError
    ) -> None:
        self._hydrating.value -= 1
        if isinstance(hydrated, RequestError):
            done(hydrated)
            return
        timer.lap(Stage.HYDRATE)
        if self.log is not None and self.log.takes():
            done = self.log.recording(keys, request.rows, hydrated, done)
        settle = partial(_settle_run, timer, request, hydrated, done)
        self.batch.submit(hydrated.columns, request.rows, request.deadline_s, settle, request.gone)

    async def close(self) -> None:
        """Stop what runs in the background; requests must have ended."""
        if self.connection is not None:
            await self.connection.close()
        if self.log is not None:
            await self.log.close()
        self.batch.close()
        self.session.close()


def _settle(answered: asyncio.Future[PredictResponse], outcome: PredictResponse | RequestError) -> None:
    if answered.done():  # nobody waits any more
        return
    if isinstance(outcome, RequestError):
        answered.set_exception(outcome)
    else:
        answered.set_result(outcome)


def _settle_run(
    timer: StageTimer, request: PredictRequest, hydrated: Hydrated, done: Done, outputs: Columns | RequestError
) -> None:
    timer.skip()
    if isinstance(outputs, RequestError):
        done(outputs)
        return
    if request.report_states:
        states, ages_s = hydrated.states, hydrated.ages_s(request.rows)
        done(PredictResponse(outputs, states, hydrated.degraded, ages_s, hydrated.columns))
    else:
        done(PredictResponse(outputs, None, degraded=hydrated.degraded, features=hydrated.columns))


def _settle_full(timer: StageTimer, columns: Columns, done: Done, outputs: Columns | RequestError) -> None:
    timer.skip()
    if isinstance(outputs, RequestError):
        done(outputs)
    else:
        done(PredictResponse(outputs, None, degraded=False, features=columns))
