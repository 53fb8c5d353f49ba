"""What every protocol answers from: the model once it is loaded, readiness, counts."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.serving import FeedbackReport, ServerReport
from fairlead_server.errors import InferenceFailed, NotReady, RequestError
from fairlead_server.exposure.exposures import Exposures
from fairlead_server.metrics import ModelMetrics, ServerMetrics
from fairlead_server.protocol import metadata
from fairlead_server.protocol.schema import Schema

if TYPE_CHECKING:
    from fairlead_server.predict.predictor import Predictor  # imports feast: 2 s in which the ports must be open

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded model and what its requests are judged by."""

    predictor: Predictor
    schema: Schema
    exposures: Exposures
    feedback: Callable[[], FeedbackReport]
    """What became of the reports on them."""

    @classmethod
    def of(cls, predictor: Predictor, exposures: Exposures, feedback: Callable[[], FeedbackReport]) -> Served:
        """Serve ``predictor``."""
        schema = Schema.of(predictor.contract, predictor.model_name, predictor.rows_limit)
        return cls(predictor, schema, exposures, feedback)

    def metadata(self, not_ready_reason: str | None) -> dict[str, Any]:
        """Return V2 model metadata.

        Args:
            not_ready_reason: Why the process should get no requests; None if it should.
        """
        report = self.report(not_ready_reason)
        return metadata.of_model(self.predictor.contract, self.schema.model, report.to_parameters())

    def report(self, not_ready_reason: str | None) -> ServerReport:
        """Return what the process tells about itself; ``not_ready_reason`` as for :meth:`metadata`."""
        now = {
            "ready": not_ready_reason is None,
            "not_ready_reason": not_ready_reason or "",
            "requests": self.exposures.counts,
            "feedback": self.feedback(),
        }
        return self.predictor.report.model_copy(update=now)


class Service:
    """One process' model, from before it is loaded until the last answer."""

    def __init__(self, model_name: str | None, variant: str, metrics: ServerMetrics) -> None:
        """Make the service, without a model.

        Args:
            model_name: Name that clients call the model by; None if only the model's file knows.
            variant: Variant that this process serves.
            metrics: The process' metrics.
        """
        self._name = model_name
        self._metrics = metrics.of(model=model_name or "", variant=variant)
        self._served: Served | None = None
        self._draining = False

    def serve(self, served: Served) -> None:
        """Answer with ``served`` from now on."""
        self._name = served.schema.model
        self._metrics = served.predictor.metrics
        self._served = served

    def drain(self) -> None:
        """Say not ready from now on; what still arrives is answered."""
        self._draining = True

    @property
    def metrics(self) -> ModelMetrics:
        """Where this model's requests are counted."""
        return self._metrics

    @property
    def not_ready_reason(self) -> str | None:
        """Why no requests should be sent here; None if they should."""
        if self._draining:
            return "the server is stopping"
        if self._served is None:
            return "the model is being loaded"
        return self._served.predictor.not_ready_reason

    def require_ready(self) -> None:
        """Check that requests should be sent here.

        Raises:
            NotReady: They should not; the message says why.
        """
        reason = self.not_ready_reason
        if reason is not None:
            raise NotReady(f"not ready: {reason}")

    def served(self) -> Served:
        """Return the loaded model.

        Raises:
            NotReady: It is not loaded yet.
        """
        if self._served is None:
            raise NotReady("not ready: the model is being loaded")
        return self._served

    def served_as(self, name: str, version: str = "") -> Served:
        """Return the loaded model if it is the one that a request asks for.

        Raises:
            NotReady: It is not loaded yet.
            UnknownModel: Another one is asked for.
        """
        served = self.served()
        served.schema.require_model(name, version)
        return served

    def names(self) -> list[str]:
        """Return the names of the models served here."""
        return [] if self._name is None else [self._name]

    def index(self, *, only_ready: bool) -> list[dict[str, str]]:
        """Return the repository index.

        Args:
            only_ready: Whether to leave out a model that is not ready.
        """
        reason = self.not_ready_reason
        if self._name is None or (only_ready and reason is not None):
            return []
        version = "" if self._served is None else self._served.schema.version
        return metadata.index(self._name, version, ready=reason is None, reason=reason or "")

    def failure(self, error: Exception, protocol: str) -> RequestError:
        """Return what a client is told about an exception; what nobody foresaw is logged and becomes a 500.

        The log names the exception's class and place, never its text, which may hold what a client sent.
        """
        if isinstance(error, RequestError):
            return error
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        _LOG.error("request failed protocol=%s error=%s at=%s", protocol, type(error).__name__, where)
        return InferenceFailed("internal error; the server's log says more")

    async def close(self) -> None:
        """Close the model; requests must have ended."""
        if self._served is not None:
            await self._served.predictor.close()
