"""One model, ready to answer: bind, hydrate, infer."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.contract import Contract
from fairlead.serving import ServerReport
from fairlead_server.errors import NotReady
from fairlead_server.metrics import ModelMetrics, Stage, StageTimer
from fairlead_server.predict.binding import FullInputs, InputRules, KeyInputs, bind
from fairlead_server.predict.connection import FeatureConnection
from fairlead_server.predict.request import PredictRequest, PredictResponse
from fairlead_server.predict.session import Session


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What the model was packaged with, and what is registered."""

    contract: str
    registry: str | None
    """None until the registry has been read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """A loaded model; made by :func:`fairlead_server.predict.load.load`."""

    contract: Contract
    model_name: str
    """What clients call it."""
    model_digest: str
    variant: str
    revision: str
    metrics: ModelMetrics
    rules: InputRules
    session: Session
    connection: FeatureConnection

    @property
    def rows_limit(self) -> int:
        """Rows of one request beyond which it is refused."""
        return self.rules.rows_limit

    @property
    def ready(self) -> bool:
        """Whether requests are answered: the registry fits, or degraded answers are allowed."""
        return self.connection.ready

    @property
    def degraded(self) -> bool:
        """Whether answers are made without the online store at the moment."""
        return self.connection.degraded

    @property
    def not_ready_reason(self) -> str | None:
        """Why the predictor is not ready, with what to do; None if it is."""
        return None if self.ready else self.connection.reason

    @property
    def fingerprints(self) -> Fingerprints:
        """Fingerprints of the feature service: packaged and registered."""
        return Fingerprints(self.contract.fingerprint, self.connection.registry.fingerprint)

    @property
    def report(self) -> ServerReport:
        """What this model tells about itself; whether the process takes requests is for its service to add."""
        reason = self.not_ready_reason
        return ServerReport(
            model_digest=self.model_digest,
            contract_digest=self.contract.digest,
            contract_fingerprint=self.contract.fingerprint,
            feature_service=self.contract.feature_service,
            variant=self.variant,
            revision=self.revision,
            ready=reason is None,
            not_ready_reason=reason or "",
            degraded=self.degraded,
            registry=self.connection.registry.report,
        )

    async def predict(self, request: PredictRequest, timer: StageTimer) -> PredictResponse:
        """Answer one request.

        Args:
            request: Decoded, not checked.
            timer: Its stages hydrate (binding included) and infer are recorded.

        Raises:
            RequestError: One of its subclasses; the request is refused, or failed.
        """
        if not self.connection.ready:
            raise NotReady(f"model {self.model_name} is not ready: {self.connection.reason}")
        match bind(self.rules, request):
            case FullInputs(columns):
                timer.lap(Stage.HYDRATE)
                outputs = await self.session.run(columns, request.rows)
                timer.lap(Stage.INFER)
                return PredictResponse(outputs, None, degraded=False, features=columns)
            case KeyInputs(columns):
                hydrated = await self.connection.hydrator.hydrate(columns, request.rows)
                timer.lap(Stage.HYDRATE)
                outputs = await self.session.run(hydrated.columns, request.rows)
                timer.lap(Stage.INFER)
                states = hydrated.states if request.report_states else None
                return PredictResponse(outputs, states, degraded=hydrated.degraded, features=hydrated.columns)

    async def close(self) -> None:
        """Stop what runs in the background; requests must have ended."""
        await self.connection.close()
        self.session.close()
