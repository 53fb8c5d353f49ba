"""What the operator counts, times and measures, for Prometheus: every name and its help, in this one place."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Values: TypeAlias = Mapping[tuple[str, ...], float]
"""Values by their labels."""

_RUN_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_CALL_BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)


class OperatorMetrics(Collector):
    """Every metric of the operator; one per process.

    What can be read off when it is scraped is not counted: whoever knows it registers a function with :meth:`read`.
    """

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        """Register all of them.

        Args:
            registry: Where they are scraped from.
            version: Of the operator.
        """
        self.registry = registry
        self._readers: dict[str, Callable[[], Values]] = {}
        self.reconciles = Counter(
            "fairlead_reconciles", "Reconciles that have ended, by how.", ["result"], registry=registry
        )
        self.reconcile_seconds = Histogram(
            "fairlead_reconcile_seconds", "Time that a reconcile took.", buckets=_RUN_BUCKETS_S, registry=registry
        )
        self.queue_wait_seconds = Histogram(
            "fairlead_queue_wait_seconds",
            "Time from when a key was due to when a worker took it.",
            buckets=_RUN_BUCKETS_S,
            registry=registry,
        )
        self.api_calls = Counter(
            "fairlead_api_calls",
            "Attempts of calls to the Kubernetes API, by HTTP code; timeout or connection where there was no answer.",
            ["verb", "kind", "code"],
            registry=registry,
        )
        self.api_call_seconds = Histogram(
            "fairlead_api_call_seconds",
            "Time to the first byte of the API's answer.",
            ["verb"],
            buckets=_CALL_BUCKETS_S,
            registry=registry,
        )
        self.ledger_calls = Counter(
            "fairlead_ledger_calls",
            "Calls to the ledger, by HTTP code; timeout or connection where there was no answer.",
            ["call", "code"],
            registry=registry,
        )
        self.ledger_call_seconds = Histogram(
            "fairlead_ledger_call_seconds",
            "Time that a call to the ledger took.",
            ["call"],
            buckets=_CALL_BUCKETS_S,
            registry=registry,
        )
        self.watch_restarts = Counter(
            "fairlead_watch_restarts", "Watches begun anew, by why.", ["kind", "reason"], registry=registry
        )
        self.transport_restarts = Counter(
            "fairlead_transport_restarts", "How often Kopf ended and was started again.", registry=registry
        )
        self.resyncs = Counter("fairlead_resyncs", "Resyncs, by result.", ["result"], registry=registry)
        self.events = Counter(
            "fairlead_events", "Kubernetes Events, by what became of them.", ["result"], registry=registry
        )
        build = Gauge("fairlead_build_info", "Always 1.", ["version", "python"], registry=registry)
        build.labels(version, platform.python_version()).set(1)
        registry.register(self)

    def read(self, name: str, reader: Callable[[], Values]) -> None:
        """Have ``reader`` give the values of a metric of ``READ_OFF`` at each scrape."""
        if name not in READ_OFF:
            raise KeyError(name)
        self._readers[name] = reader

    def read_all(self, readers: Mapping[str, Callable[[], Values]]) -> None:
        """Have several functions read, each as by :meth:`read`."""
        for name, reader in readers.items():
            self.read(name, reader)

    def called(self, verb: str, kind: str, code: str, duration_s: float) -> None:
        """Count one attempt of a call to the Kubernetes API."""
        self.api_calls.labels(verb, kind, code).inc()
        if verb not in {"watch", "log"}:
            self.api_call_seconds.labels(verb).observe(duration_s)

    def ledger_called(self, call: str, code: str, duration_s: float) -> None:
        """Count one call to the ledger."""
        self.ledger_calls.labels(call, code).inc()
        self.ledger_call_seconds.labels(call).observe(duration_s)

    def collect(self) -> Iterator[Metric]:
        """Yield what is read off; called by the registry at each scrape."""
        for name, reader in self._readers.items():
            text, labels = READ_OFF[name]
            sort = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family = sort(name.removesuffix("_total"), text, labels=labels)
            for values, number in reader().items():
                family.add_metric(values, number)
            yield family


READ_OFF: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "fairlead_leader": ("Whether this process holds the Lease.", ()),
    "fairlead_queue_keys": ("Keys in the queue: ready for a worker, or waiting for their time.", ("state",)),
    "fairlead_queue_oldest_seconds": ("How long the longest waiting key has waited for a worker.", ()),
    "fairlead_queue_dropped_total": ("Keys dropped because the queue was full; the next resync adds them.", ()),
    "fairlead_running_oldest_seconds": ("How long the longest of the present reconciles has been going on.", ()),
    "fairlead_stored_objects": ("Objects in memory.", ("kind",)),
    "fairlead_kind_missing": ("Whether the API does not serve a kind.", ("kind",)),
    "fairlead_watch_age_seconds": ("How long ago a watch last told anything, bookmarks included.", ("kind",)),
    "fairlead_relist_repairs_total": (
        "Vanished ModelDeployments found by a resync that the watch had not told of.",
        (),
    ),
    "fairlead_gateway_logs": ("Gateways' logs that are followed.", ()),
    "fairlead_gateway_log_failures_total": ("How often following a gateway's log failed unexpectedly.", ()),
    "fairlead_gateway_log_unread_seconds_total": (
        "Time of gateways' logs that was rotated away unread; before: who led before may have read it.",
        ("when",),
    ),
    "fairlead_unanswered_requests_total": (
        "Requests of experiments that no server answered, by what became of their telling.",
        ("result",),
    ),
    "fairlead_experiments": ("Experiments by verdict and reason of their last analysis.", ("verdict", "reason")),
    "fairlead_deployments": ("ModelDeployments by the status of each of their conditions.", ("condition", "status")),
}
"""What is read off: help and labels by name; what ends in ``_total`` only grows."""
