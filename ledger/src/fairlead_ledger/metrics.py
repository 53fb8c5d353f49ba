"""What the ledger counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fairlead.feedback.messages import Fate, OutcomeAnswer


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

    def watch(self, waiting: Callable[[], float]) -> None:
        """Show how much waits to be written."""
        gauge = Gauge("fairlead_ledger_waiting_entries", "Entries that wait to be written.", registry=self.registry)
        gauge.set_function(waiting)

    def count_outcomes(self, answer: OutcomeAnswer) -> None:
        """Count what became of a batch."""
        self.outcomes.labels(Fate.ACCEPTED.value).inc(answer.accepted)
        self.outcomes.labels(Fate.DUPLICATE.value).inc(answer.duplicates)
        for refusal in answer.refused:
            self.outcomes.labels(refusal.fate.value).inc()

    def _counter(self, noun: str, what: str, *labels: str) -> Counter:
        return Counter(f"fairlead_ledger_{noun}", what, labels, registry=self.registry)
