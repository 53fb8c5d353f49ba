"""What the server counts and times, for Prometheus; registered where the caller says, never globally.

Values are plain numbers that become Prometheus' families when they are scraped, not ``prometheus_client``'s own:
importing Feast puts those of the whole process into files shared by name (its multiprocess mode). They are written
on the event loop's thread alone.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from fairlead.policy import FeatureState
from fairlead_server.hydrate.observed import Ages, HydrationMetrics, Watched

_STAGE_BUCKETS_S = (
    *(25e-6, 50e-6, 100e-6, 250e-6, 500e-6),
    *(1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5),
)


class Stage(StrEnum):
    """Parts of answering one request, in order."""

    DECODE = "decode"
    HYDRATE = "hydrate"
    QUEUE = "queue"
    """Waiting for a thread; only requests whose run is long wait for one."""
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


class RegistryRead(StrEnum):
    """What a read of the registry came to."""

    FITS = "fits"
    SWAPPED = "swapped"
    """It fits, something else about it had changed, and the plan was compiled anew and is in force."""
    POSTPONED = "postponed"
    """The same, but the online store did not answer; the plan in force stays until the next read."""
    DIFFERS = "differs"
    """The registered feature service is not the contract's."""
    FAILED = "failed"
    """It raised an error, or took too long; the plan in force stays."""


class Unrun(StrEnum):
    """Why a request that needed a long run was not run."""

    OVERLOADED = "overloaded"
    """It would not have been answered in time."""
    FULL = "full"
    """Too many waited already, or too much."""
    LATE = "late"
    """Its deadline passed while it waited."""
    GONE = "gone"
    """Its client left while it waited."""


class LogOutcome(StrEnum):
    """What became of a sampled row of the prediction log."""

    WRITTEN = "written"
    """It is in a file."""
    DROPPED = "dropped"
    """Too many waited to be written."""
    FAILED = "failed"
    """The folder could not be written."""


class Count:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        """Start at 0."""
        self.value = 0

    def add(self, amount: int = 1) -> None:
        """Grow by ``amount``."""
        self.value += amount


class Durations:
    """Times by bucket, in seconds."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        """Start empty."""
        self.counts = [0] * (len(_STAGE_BUCKETS_S) + 1)
        self.sum_s = 0.0

    def add(self, duration_s: float, times: int = 1) -> None:
        """Count a duration, as often as so many requests shared it."""
        self.counts[bisect_left(_STAGE_BUCKETS_S, duration_s)] += times
        self.sum_s += duration_s * times

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class FeedbackState:
    """What is told and remembered of exposures, at a scrape; totals since the start."""

    first_exposures: int
    dropped_requests: int
    forgotten_units: int
    spool_failures: int
    waiting_reports: int
    waiting_bytes: int
    last_success_us: int
    """Microseconds since 1970-01-01 UTC; 0 if there was none."""


_OF_MODEL = ("model", "variant")
_Values = tuple[str, ...]


class ServerMetrics(Collector):
    """Every metric of the server; one per process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Start with nothing counted.

        Args:
            registry: Where the metrics are scraped from.
        """
        self.requests: dict[_Values, Count] = {}
        self.features: dict[_Values, Count] = {}
        self.reads: dict[_Values, Count] = {}
        self.circuits: dict[_Values, Count] = {}
        self.connection_failures: dict[_Values, Count] = {}
        self.exposures: dict[_Values, Count] = {}
        self.registry_reads: dict[_Values, Count] = {}
        self.stages: dict[_Values, Durations] = {}
        self.degraded: dict[_Values, Callable[[], bool]] = {}
        self.unrun: dict[_Values, Count] = {}
        self.queued: dict[_Values, Callable[[], int]] = {}
        self.tokens: dict[_Values, Count] = {}
        self.exposed_failures: dict[_Values, Count] = {}
        self.reports: dict[_Values, Count] = {}
        self.feedback: dict[_Values, Callable[[], FeedbackState]] = {}
        self.logged_rows: dict[_Values, Count] = {}
        self.removed_log_files: dict[_Values, Count] = {}
        self.hydration = HydrationMetrics()
        registry.register(self)

    def of(self, *, model: str, variant: str) -> ModelMetrics:
        """Return the metrics of one model; its name must be one that is served, not a client's word."""
        return ModelMetrics(self, (model, variant))

    def collect(self) -> Iterator[Metric]:
        """Yield every family; called by the registry at each scrape."""
        yield _counts(
            "fairlead_requests",
            "Requests answered, by HTTP status or gRPC code.",
            ("protocol", "code"),
            self.requests,
        )
        yield _durations("fairlead_stage_seconds", "Time per part of answering a request.", ("stage",), self.stages)
        yield _counts(
            "fairlead_feature_states",
            "Features hydrated, one per row and feature, by the state they were found in.",
            ("view", "state"),
            self.features,
        )
        yield _counts(
            "fairlead_store_reads",
            "Requests that read the online store, by how that ended.",
            ("outcome",),
            self.reads,
        )
        yield _counts(
            "fairlead_store_circuits",
            "Changes of the breaker that leaves a sick online store alone, by what it changed to.",
            ("circuit",),
            self.circuits,
        )
        yield from self.hydration.collect()
        yield _counts(
            "fairlead_connection_failures",
            "Failed attempts to open the feature store, by the kind of error.",
            ("kind",),
            self.connection_failures,
        )
        yield _counts(
            "fairlead_exposures", "Requests by what their experiment header came to.", ("outcome",), self.exposures
        )
        yield _counts(
            "fairlead_registry_reads",
            "Reads of the registry, by how it compared to the contract.",
            ("outcome",),
            self.registry_reads,
        )
        yield _counts(
            "fairlead_unrun_requests",
            "Requests refused or left out because the model's queue is too long for them, by reason.",
            ("reason",),
            self.unrun,
        )
        queued = GaugeMetricFamily("fairlead_queued_requests", "Requests that wait for a long run.", labels=_OF_MODEL)
        for values, waiting in list(self.queued.items()):
            queued.add_metric(values, waiting())
        yield queued
        degraded = GaugeMetricFamily(
            "fairlead_degraded", "1 while the model answers without its online store.", labels=_OF_MODEL
        )
        for values, is_degraded in list(self.degraded.items()):
            degraded.add_metric(values, float(is_degraded()))
        yield degraded
        yield from self._collect_feedback()
        yield _counts(
            "fairlead_prediction_log_rows",
            "Rows sampled for the prediction log, by what became of them.",
            ("outcome",),
            self.logged_rows,
        )
        yield _counts(
            "fairlead_prediction_log_removed_files",
            "Files removed because the prediction log had grown too large.",
            (),
            self.removed_log_files,
        )

    def _collect_feedback(self) -> Iterator[Metric]:
        yield _counts("fairlead_prediction_tokens", "Answers that carried a prediction token.", (), self.tokens)
        yield _counts(
            "fairlead_exposed_failures",
            "Requests of exposed units that were answered with a fault of ours, or a rejected feature, by error.",
            ("error",),
            self.exposed_failures,
        )
        yield _counts(
            "fairlead_exposure_reports",
            "Attempts to send a report of exposures, by what became of it.",
            ("outcome",),
            self.reports,
        )
        states = {values: state() for values, state in list(self.feedback.items())}
        for name, text, value in _FEEDBACK_TOTALS:
            total = CounterMetricFamily(name, text, labels=_OF_MODEL)
            for values, state in states.items():
                total.add_metric(values, value(state))
            yield total
        for name, text, number in _FEEDBACK_GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=_OF_MODEL)
            for values, state in states.items():
                gauge.add_metric(values, number(state))
            yield gauge


class ModelMetrics:
    """The metrics of one model."""

    def __init__(self, metrics: ServerMetrics, model: _Values) -> None:
        """Bind the labels; see :meth:`ServerMetrics.of`."""
        self._metrics = metrics
        self._model = model
        self._stages = {stage: metrics.stages.setdefault((*model, stage), Durations()) for stage in Stage}
        self._reads = {outcome: metrics.reads.setdefault((*model, outcome), Count()) for outcome in ReadOutcome}

    def durations(self, stage: Stage) -> Durations:
        """Return where durations of ``stage`` are counted, for runs that requests share."""
        return self._stages[stage]

    def timer(self) -> StageTimer:
        """Return a timer for one request; its first stage starts now."""
        return StageTimer(self._stages)

    def count_request(self, protocol: str, code: str) -> None:
        """Count one answer; ``protocol`` such as ``v2-rest``, ``code`` an HTTP status or a gRPC code's name."""
        self.requests(protocol, code).add()

    def requests(self, protocol: str, code: str) -> Count:
        """Return where answers are counted; as for :meth:`count_request`."""
        return _child(self._metrics.requests, (*self._model, protocol, code))

    def answers(self) -> dict[str, int]:
        """Return how many requests were answered with each code, by any protocol."""
        found: dict[str, int] = {}
        for (*model, _, code), count in list(self._metrics.requests.items()):
            if tuple(model) == self._model:
                found[code] = found.get(code, 0) + count.value
        return found

    def count_features(self, view: str, state: FeatureState, amount: int) -> None:
        """Count ``amount`` features of a view found in ``state``."""
        self.features(view, state).add(amount)

    def features(self, view: str, state: FeatureState) -> Count:
        """Return where features of a view found in ``state`` are counted."""
        return _child(self._metrics.features, (*self._model, view, state))

    def count_read(self, outcome: ReadOutcome, requests: int = 1) -> None:
        """Count reads of the online store, by the requests that they were made for."""
        self._reads[outcome].add(requests)

    def count_circuit(self, circuit: str) -> None:
        """Count one change of the breaker before the online store; ``circuit`` is what it changed to."""
        _child(self._metrics.circuits, (*self._model, circuit)).add()

    def ages(self, view: str) -> Ages:
        """Return where the ages of a view's rows are counted."""
        return self._metrics.hydration.ages_of(self._model, view)

    def limit_age(self, view: str, limit_s: float) -> None:
        """Note the age in seconds beyond which a view's rows are STALE."""
        self._metrics.hydration.limits_s[*self._model, view] = limit_s

    def note_reader(self, view: str, reader: str) -> None:
        """Note who reads or computes a view."""
        self._metrics.hydration.readers[*self._model, view] = reader

    def watch_hydration(self, watched: Watched) -> None:
        """Ask ``watched`` at every scrape."""
        self._metrics.hydration.watched[self._model] = watched

    def count_connection_failure(self, kind: str) -> None:
        """Count one failed attempt to open the feature store; ``kind`` is the exception's class."""
        _child(self._metrics.connection_failures, (*self._model, kind)).add()

    def count_exposure(self, outcome: str) -> None:
        """Count what one request's experiment header came to."""
        self.exposed(outcome).add()

    def exposed(self, outcome: str) -> Count:
        """Return where requests are counted whose experiment header came to ``outcome``."""
        return _child(self._metrics.exposures, (*self._model, outcome))

    def exposures(self, outcome: str) -> int:
        """Return how often :meth:`count_exposure` was told ``outcome``."""
        count = self._metrics.exposures.get((*self._model, outcome))
        return 0 if count is None else count.value

    @property
    def tokens(self) -> Count:
        """Where answers with a prediction token are counted."""
        return _child(self._metrics.tokens, self._model)

    def count_exposed_failure(self, error: str) -> None:
        """Count one request of an exposed unit that got no prediction; ``error`` is the exception's class."""
        _child(self._metrics.exposed_failures, (*self._model, error)).add()

    def count_report(self, outcome: str) -> None:
        """Count one attempt to send a report."""
        _child(self._metrics.reports, (*self._model, outcome)).add()

    def reports(self, outcome: str) -> int:
        """Return how often :meth:`count_report` was told ``outcome``."""
        count = self._metrics.reports.get((*self._model, outcome))
        return 0 if count is None else count.value

    def count_logged(self, outcome: LogOutcome, rows: int) -> None:
        """Count rows of the prediction log."""
        _child(self._metrics.logged_rows, (*self._model, outcome)).add(rows)

    def count_removed_log_files(self, files: int) -> None:
        """Count files that the prediction log had to remove."""
        _child(self._metrics.removed_log_files, self._model).add(files)

    def watch_feedback(self, state: Callable[[], FeedbackState]) -> None:
        """Ask ``state`` at every scrape."""
        self._metrics.feedback[self._model] = state

    def count_registry_read(self, outcome: RegistryRead) -> None:
        """Count one read of the registry."""
        _child(self._metrics.registry_reads, (*self._model, outcome)).add()

    def count_unrun(self, reason: Unrun) -> None:
        """Count one request that was not run."""
        _child(self._metrics.unrun, (*self._model, reason)).add()

    def watch_queued(self, queued: Callable[[], int]) -> None:
        """Ask ``queued`` at every scrape."""
        self._metrics.queued[self._model] = queued

    def unwatch(self) -> None:
        """Ask the model nothing any more, for it is gone; what was counted stays."""
        self._metrics.degraded.pop(self._model, None)
        self._metrics.queued.pop(self._model, None)
        self._metrics.hydration.watched.pop(self._model, None)

    def unwatch_feedback(self) -> None:
        """Ask nothing any more about reports."""
        self._metrics.feedback.pop(self._model, None)

    def watch_degraded(self, degraded: Callable[[], bool]) -> None:
        """Ask ``degraded`` at every scrape."""
        self._metrics.degraded[self._model] = degraded


class StageTimer:
    """Times the stages of one request: each lap ends a stage and starts the next."""

    __slots__ = ("_last_s", "_stages", "_start_s")

    def __init__(self, stages: dict[Stage, Durations]) -> None:
        """Start the first stage; see :meth:`ModelMetrics.timer`."""
        self._stages = stages
        self._start_s = self._last_s = time.perf_counter()

    @property
    def elapsed_us(self) -> int:
        """Microseconds since the start."""
        return int((time.perf_counter() - self._start_s) * 1e6)

    def lap(self, stage: Stage) -> None:
        """Record the time since the last lap as ``stage``."""
        now_s = time.perf_counter()
        self._stages[stage].add(now_s - self._last_s)
        self._last_s = now_s

    def skip(self) -> None:
        """Start the next stage now; what was since the last lap is timed elsewhere, for it was shared."""
        self._last_s = time.perf_counter()


_FEEDBACK_TOTALS: Final[Sequence[tuple[str, str, Callable[[FeedbackState], float]]]] = (
    (
        "fairlead_first_exposures",
        "Units that were exposed for the first time that the server knows of, by phase and arm.",
        lambda state: state.first_exposures,
    ),
    (
        "fairlead_exposure_dropped_requests",
        "Requests that found no room among what waits to be reported.",
        lambda state: state.dropped_requests,
    ),
    (
        "fairlead_exposure_forgotten_units",
        "Units pushed out of the memory of those reported; they are reported again when they return.",
        lambda state: state.forgotten_units,
    ),
    (
        "fairlead_exposure_spool_failures",
        "Failures to write or read the folder of reports that wait.",
        lambda state: state.spool_failures,
    ),
)
_FEEDBACK_GAUGES: Final[Sequence[tuple[str, str, Callable[[FeedbackState], float]]]] = (
    (
        "fairlead_exposure_waiting_reports",
        "Reports that the ledger has not taken yet.",
        lambda state: state.waiting_reports,
    ),
    ("fairlead_exposure_waiting_bytes", "Their size, compressed.", lambda state: state.waiting_bytes),
    (
        "fairlead_exposure_last_success_timestamp_seconds",
        "When the ledger last took a report, by the server's clock; 0 for never.",
        lambda state: state.last_success_us / 1e6,
    ),
)


def _child(counts: dict[_Values, Count], values: _Values) -> Count:
    count = counts.get(values)
    if count is None:
        count = counts[values] = Count()
    return count


def _counts(name: str, text: str, labels: Sequence[str], counts: dict[_Values, Count]) -> Metric:
    family = CounterMetricFamily(name, text, labels=(*_OF_MODEL, *labels))
    for values, count in list(counts.items()):
        family.add_metric(values, count.value)
    return family


def _durations(name: str, text: str, labels: Sequence[str], durations: dict[_Values, Durations]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=(*_OF_MODEL, *labels))
    limits = [*map(str, _STAGE_BUCKETS_S), "+Inf"]
    for values, duration in list(durations.items()):
        buckets = list(zip(limits, accumulate(duration.counts), strict=True))
        family.add_metric(values, buckets, sum_value=duration.sum_s)
    return family
