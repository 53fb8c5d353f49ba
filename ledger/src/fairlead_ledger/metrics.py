"""What the ledger counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fairlead.feedback.messages import Fate, OutcomeAnswer
from fairlead_ledger.store.fold import Backlog


class LedgerMetrics:
    """Every metric of the ledger; one per application."""

    def __init__(self) -> None:
        """Start with nothing counted."""
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests answered, by route and HTTP status.", "route", "code")
        self.reports = self._counter("reports", "Reports of servers, by whether they were told before.", "outcome")
        self.outcomes = self._counter("outcomes", "Outcomes, by what became of them.", "fate")
        self.folds = self._counter("folds", "Folds of an experiment, by how they ended.", "outcome")
        self.writes = Histogram(
            "fairlead_ledger_write_seconds", "Time of a transaction of the intake.", registry=self.registry
        )
        self.analyses = Histogram(
            "fairlead_ledger_analysis_seconds", "Time until an analysis was made.", registry=self.registry
        )
        self.pending = self._gauge("pending_outcomes", "Outcomes that wait until their request is judged.")
        self.fold_lag = self._gauge(
            "fold_lag_seconds", "How long the oldest of them that may be judged has waited, by the experiments' clock."
        )

    def watch(self, waiting: Callable[[], float]) -> None:
        """Show how much waits to be written."""
        gauge = Gauge("fairlead_ledger_waiting_entries", "Entries that wait to be written.", registry=self.registry)
        gauge.set_function(waiting)

    def tell_backlog(self, backlog: Backlog) -> None:
        """Show what waits to be folded."""
        self.pending.set(backlog.outcomes)
        self.fold_lag.set(backlog.lag_s)

    def count_outcomes(self, answer: OutcomeAnswer) -> None:
        """Count what became of a batch."""
        self.outcomes.labels(Fate.ACCEPTED.value).inc(answer.accepted)
        self.outcomes.labels(Fate.DUPLICATE.value).inc(answer.duplicates)
        for refusal in answer.refused:
            self.outcomes.labels(refusal.fate.value).inc()

    def _gauge(self, noun: str, what: str) -> Gauge:
        return Gauge(f"fairlead_ledger_{noun}", what, registry=self.registry)

    def _counter(self, noun: str, what: str, *labels: str) -> Counter:
        return Counter(f"fairlead_ledger_{noun}", what, labels, registry=self.registry)
