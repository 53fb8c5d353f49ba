"""What every protocol answers from: the models of a process, by name and version, readiness, counts.

A request finds its model by one access to a dictionary. Whatever changes the set (:class:`Service` itself, see
:meth:`Service.put`) runs on the event loop and between two requests, so that each request sees one set whole.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fairlead.serving import FeedbackReport, ServerReport
from fairlead_server.errors import InferenceFailed, InvalidRequest, NotReady, RequestError, UnknownModel
from fairlead_server.exposure.exposures import Exposures
from fairlead_server.metrics import ModelMetrics, ServerMetrics
from fairlead_server.protocol import metadata
from fairlead_server.protocol.schema import Schema

if TYPE_CHECKING:
    from fairlead_server.predict.predictor import Predictor  # imports feast: 2 s in which the ports must be open
    from fairlead_server.protocol.others import Others

_LOG = logging.getLogger(__name__)
LOADING = "the model is being loaded"
"""Reason of a model that is not loaded yet."""
UNLOADED = "unloaded"
"""Reason of a model that nobody wants served."""


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
        name, contract, rows_limit = predictor.model_name, predictor.contract, predictor.rows_limit
        if contract is None:
            schema = Schema.of_graph(predictor.signature, name, predictor.version, rows_limit)
        else:
            # A repository's folder may call the version otherwise than the contract does.
            schema = replace(Schema.of(contract, name, rows_limit), version=predictor.version)
        return cls(predictor, schema, exposures, feedback)

    def metadata(self, not_ready_reason: str | None) -> dict[str, Any]:
        """Return V2 model metadata.

        Args:
            not_ready_reason: Why the process should get no requests; None if it should.
        """
        report = self.report(not_ready_reason)
        return metadata.of_model(self.schema, self.predictor.contract, report.to_parameters())

    def report(self, not_ready_reason: str | None) -> ServerReport:
        """Return what the process tells about itself; ``not_ready_reason`` as for :meth:`metadata`."""
        now = {
            "ready": not_ready_reason is None,
            "not_ready_reason": not_ready_reason or "",
            "requests": self.exposures.counts,
            "feedback": self.feedback(),
        }
        return self.predictor.report.model_copy(update=now)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a model, as the index tells it."""

    served: Served | None = None
    """What answers; None for a version that is not loaded."""
    reason: str = LOADING
    """Why it is not loaded."""
    wanted: bool = True
    """Whether it should be served: the process is not ready without it."""

    @property
    def not_ready_reason(self) -> str | None:
        """Why it answers no requests; None if it does."""
        return self.reason if self.served is None else self.served.predictor.not_ready_reason


class Control(Protocol):
    """Loads and unloads models because a client says so."""

    async def load(self, name: str) -> None:
        """Load a model, or load it again.

        Raises:
            RequestError: It is not there, or cannot be served; what was served before still is.
        """

    async def unload(self, name: str) -> None:
        """Stop serving a model.

        Raises:
            RequestError: There is no such model.
        """


class NoControl:
    """Refuses: what is served was decided when the server was started."""

    async def load(self, _name: str) -> None:
        """Refuse; see :class:`Control`."""
        raise InvalidRequest(
            "models are not loaded or unloaded by clients; a server serves what it was started with, "
            "unless it is started with --model-repository and --model-control=explicit"
        )

    unload = load


class Service:
    """One process' models, from before they are loaded until the last answer."""

    def __init__(self, model_name: str | None, variant: str, metrics: ServerMetrics) -> None:
        """Make the service, without a model.

        Args:
            model_name: Name that clients call the only model by; None if only the model's file knows, or there are
                several.
            variant: Variant that this process serves.
            metrics: The process' metrics.
        """
        self._found: dict[tuple[str, str], Served] = {}
        self._models: dict[str, Mapping[str, Version]] = {}
        self._metrics: dict[str, ModelMetrics] = {}
        self._of_nobody = metrics.of(model=model_name or "", variant=variant)
        self._listeners: list[Callable[[], None]] = []
        self._only = True
        self._starting = True
        self._draining = False
        self.waiting_for: str | None = None
        """What the process waits for beside its own models; None for nothing."""
        self.others: Others | None = None
        """The other processes of this server, if there are any."""
        self.control: Control = NoControl()
        """Who loads and unloads models for clients."""
        if model_name is not None:
            self._models[model_name] = {"": Version()}

    def serve(self, served: Served) -> None:
        """Answer with ``served``, the process' only model, from now on."""
        self._models.clear()
        self._found.clear()
        self.put(served.schema.model, {served.schema.version: Version(served)})
        self._of_nobody = served.predictor.metrics
        self._starting = False

    def begin(self) -> None:
        """Serve several models from now on; each is :meth:`put` when it is known, and again when it is loaded."""
        self._only = self._starting = False

    def put(self, name: str, versions: Mapping[str, Version]) -> None:
        """Know a model by these versions from now on, instead of what was known of it.

        Args:
            name: The model's.
            versions: By version, the preferred one first: it, and no other, answers whoever asks for none.
        """
        for version in ("", *self._models.get(name, ())):
            self._found.pop((name, version), None)
        self._models[name] = versions
        for place, (version, known) in enumerate(versions.items()):
            if known.served is not None:
                self._found[name, version] = known.served
                self._metrics[name] = known.served.predictor.metrics
                if not place:
                    self._found[name, ""] = known.served
        self.watch(name)
        for listener in self._listeners:
            listener()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called whenever models come or go: whoever remembers what it found must forget it."""
        self._listeners.append(listener)

    def watch(self, name: str) -> None:
        """Have metrics ask the versions of a model that are served now; none keeps one in memory that is not."""
        metrics = self._metrics.get(name)
        if metrics is None:
            return
        predictors = [known.served.predictor for known in self._models[name].values() if known.served is not None]
        if predictors:
            metrics.watch_degraded(lambda: any(predictor.degraded for predictor in predictors))
            metrics.watch_queued(lambda: sum(len(predictor.batch.queue.waiting) for predictor in predictors))
        else:
            metrics.unwatch()

    def versions_of(self, name: str) -> Mapping[str, Version]:
        """Return what is known of a model, by version; empty if nothing is."""
        return self._models.get(name, {})

    def drain(self) -> None:
        """Say not ready from now on; what still arrives is answered."""
        self._draining = True

    @property
    def metrics(self) -> ModelMetrics:
        """Where requests for no model in particular are counted: with the only model, else under an empty name."""
        return self._of_nobody

    def metrics_of(self, name: str) -> ModelMetrics:
        """Where requests for a model are counted; a name that is not served is nobody's."""
        return self._metrics.get(name, self._of_nobody)

    @property
    def not_ready_reason(self) -> str | None:
        """Why no requests should be sent here; None if they should: every wanted model is ready."""
        if self._draining:
            return "the server is stopping"
        if self._starting:
            return LOADING
        if self.waiting_for is not None:
            return self.waiting_for
        for name, versions in self._models.items():
            for version, known in versions.items():
                reason = known.not_ready_reason if known.wanted else None
                if reason is not None:
                    which = f"model {name} version {version}" if version else f"model {name}"
                    return reason if self._only else f"{which}: {reason}"
        return None

    def reason_of(self, served: Served) -> str | None:
        """Return why no requests for a model should be sent here; None if they should."""
        return "the server is stopping" if self._draining else served.predictor.not_ready_reason

    def require_ready(self, served: Served | None = None) -> None:
        """Check that requests should be sent here.

        Args:
            served: The model that they are for; None for all.

        Raises:
            NotReady: They should not; the message says why.
        """
        reason = self.not_ready_reason if served is None else self.reason_of(served)
        if reason is not None:
            raise NotReady(f"not ready: {reason}")

    def served(self) -> Served:
        """Return the process' only model.

        Raises:
            NotReady: It is not loaded yet.
        """
        for served in self._found.values():
            return served
        raise NotReady(f"not ready: {LOADING}")

    def served_as(self, name: str, version: str = "") -> Served:
        """Return the model that a request asks for; ``version`` is empty for the preferred one.

        Raises:
            NotReady: It is not loaded yet, or could not be loaded.
            UnknownModel: There is none of that name and version.
        """
        served = self._found.get((name, version))
        if served is None:
            raise self._refusal(name, version)
        return served

    def _refusal(self, name: str, version: str) -> RequestError:
        if self._starting:
            return NotReady(f"not ready: {LOADING}")
        versions = self._models.get(name)
        if versions is None:
            here = ", ".join(repr(known) for known in list(self._models)[:8]) or "none"
            return UnknownModel(f"model {name!r} is not served here; this server has {here}", field="model_name")
        known = next(iter(versions.values()), None) if not version else versions.get(version)
        if known is None:
            here = ", ".join(map(repr, versions)) or "none"
            return UnknownModel(
                f"model {name!r} has no version {version!r} here; served is {here}", field="model_version"
            )
        if not known.wanted:
            return UnknownModel(f"model {name!r} is not loaded: {known.reason}", field="model_name")
        return NotReady(f"model {name!r} is not ready: {known.reason}")

    def asked(self, name: str, version: str) -> list[Served]:
        """Return the loaded models of a name and version; empty for any.

        Raises:
            RequestError: A model is named, and not there.
        """
        if version:
            return [self.served_as(name, version)]
        if name:
            self.served_as(name)
        named = self._models.items() if not name else [(name, self._models[name])]
        return [known.served for _, versions in named for known in versions.values() if known.served is not None]

    def metadata_of(self, served: Served) -> dict[str, Any]:
        """Return V2 model metadata."""
        loaded = [version for version, known in self._models[served.schema.model].items() if known.served is not None]
        return served.metadata(self.reason_of(served)) | {"versions": loaded}

    def names(self) -> list[str]:
        """Return the names of the models that are, or should be, served here."""
        return [name for name, versions in self._models.items() if any(known.wanted for known in versions.values())]

    def index(self, *, only_ready: bool) -> list[dict[str, str]]:
        """Return the repository index.

        Args:
            only_ready: Whether to leave out what is not ready.
        """
        entries: list[dict[str, str]] = []
        for name, versions in self._models.items():
            for version, known in versions.items():
                reason = known.not_ready_reason if known.served is None else self.reason_of(known.served)
                if reason is None or not only_ready:
                    entries += metadata.index(name, version, ready=reason is None, reason=reason or "")
        return entries

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
        """Close the models; requests must have ended."""
        for served in {id(served): served for served in self._found.values()}.values():
            await served.predictor.close()
