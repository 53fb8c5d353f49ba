"""What the server counts and times, for Prometheus; registered where the caller says, never globally."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fairlead.policy import FeatureState

_STAGE_BUCKETS_S = (
    *(25e-6, 50e-6, 100e-6, 250e-6, 500e-6),
    *(1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5),
)


class Stage(StrEnum):
    """Parts of answering one request, in order."""

    DECODE = "decode"
    HYDRATE = "hydrate"
    INFER = "infer"
    ENCODE = "encode"


class ReadOutcome(StrEnum):
    """How a request's read of the online store ended."""

    OK = "ok"
    ERROR = "error"
    """The store raised an error for at least one view."""
    TIMEOUT = "timeout"
    """The deadline passed."""
    REFUSED = "refused"
    """Not tried: too many requests wait already, or the store is stuck."""


class ServerMetrics:
    """Every metric of the server; one per process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Declare the metrics.

        Args:
            registry: Where they are registered and scraped from.
        """
        of_model = ("model", "variant")
        self.requests = Counter(
            "fairlead_requests_total",
            "Requests answered, by HTTP status or gRPC code.",
            (*of_model, "protocol", "code"),
            registry=registry,
        )
        self.stages = Histogram(
            "fairlead_stage_seconds",
            "Time per part of answering a request.",
            (*of_model, "stage"),
            buckets=_STAGE_BUCKETS_S,
            registry=registry,
        )
        self.features = Counter(
            "fairlead_features_total",
            "Features hydrated, one per row and feature, by the state they were found in.",
            (*of_model, "view", "state"),
            registry=registry,
        )
        self.reads = Counter(
            "fairlead_store_reads_total",
            "Requests that read the online store, by how that ended.",
            (*of_model, "outcome"),
            registry=registry,
        )
        self.exposures = Counter(
            "fairlead_exposures_total",
            "Requests by what their experiment header came to.",
            (*of_model, "outcome"),
            registry=registry,
        )
        self.degraded = Gauge(
            "fairlead_degraded",
            "1 while the model answers without its online store.",
            of_model,
            registry=registry,
        )

    def of(self, *, model: str, variant: str) -> ModelMetrics:
        """Return the metrics of one model; its name must be one that is served, not a client's word."""
        return ModelMetrics(self, model, variant)


class ModelMetrics:
    """The metrics of one model, label values looked up once."""

    def __init__(self, metrics: ServerMetrics, model: str, variant: str) -> None:
        """Bind the label values; see :meth:`ServerMetrics.of`."""
        self._metrics = metrics
        self._labels = (model, variant)
        self._stages = {stage: metrics.stages.labels(*self._labels, stage.value) for stage in Stage}
        self._reads = {outcome: metrics.reads.labels(*self._labels, outcome.value) for outcome in ReadOutcome}
        self._requests: dict[tuple[str, str], Counter] = {}
        self._features: dict[tuple[str, FeatureState], Counter] = {}
        self._exposures: dict[str, Counter] = {}

    def timer(self) -> StageTimer:
        """Return a timer for one request; its first stage starts now."""
        return StageTimer(self._stages)

    def count_request(self, protocol: str, code: str) -> None:
        """Count one answer; ``protocol`` such as ``v2-rest``, ``code`` an HTTP status or a gRPC code's name."""
        counter = self._requests.get((protocol, code))
        if counter is None:
            counter = self._requests[protocol, code] = self._metrics.requests.labels(*self._labels, protocol, code)
        counter.inc()

    def count_features(self, view: str, state: FeatureState, amount: int) -> None:
        """Count ``amount`` features of a view found in ``state``."""
        counter = self._features.get((view, state))
        if counter is None:
            counter = self._features[view, state] = self._metrics.features.labels(*self._labels, view, state.value)
        counter.inc(amount)

    def count_read(self, outcome: ReadOutcome) -> None:
        """Count one request's read of the online store."""
        self._reads[outcome].inc()

    def count_exposure(self, outcome: str) -> None:
        """Count what one request's experiment header came to."""
        counter = self._exposures.get(outcome)
        if counter is None:
            counter = self._exposures[outcome] = self._metrics.exposures.labels(*self._labels, outcome)
        counter.inc()

    def watch_degraded(self, degraded: Callable[[], bool]) -> None:
        """Ask ``degraded`` at every scrape."""
        self._metrics.degraded.labels(*self._labels).set_function(lambda: float(degraded()))


class StageTimer:
    """Times the stages of one request: each lap ends a stage and starts the next."""

    __slots__ = ("_last_s", "_stages")

    def __init__(self, stages: dict[Stage, Histogram]) -> None:
        """Start the first stage; see :meth:`ModelMetrics.timer`."""
        self._stages = stages
        self._last_s = time.perf_counter()

    def lap(self, stage: Stage) -> None:
        """Record the time since the last lap as ``stage``."""
        now_s = time.perf_counter()
        self._stages[stage].observe(now_s - self._last_s)
        self._last_s = now_s
