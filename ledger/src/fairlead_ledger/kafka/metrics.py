"""What is counted of messages, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge


class MessageFate(StrEnum):
    """What became of a message."""

    TAKEN = "taken"
    DUPLICATE = "duplicate"
    """A report that was told before. Outcomes are counted one by one, by ``fairlead_ledger_outcomes_total``."""
    REFUSED = "refused"
    """It cannot be read, and is in the topic of such ones."""
    DROPPED = "dropped"
    """It cannot be read, and neither could the topic of such ones be written."""


class KafkaMetrics:
    """Every metric of the consumer."""

    def __init__(self, registry: CollectorRegistry, topics: tuple[str, ...], poll_age_s: Callable[[], float]) -> None:
        """Start with nothing counted.

        Args:
            registry: Of the ledger.
            topics: Both topics.
            poll_age_s: Tells how long ago messages were last asked for.
        """
        self._messages = Counter(
            "fairlead_ledger_kafka_messages",
            "Messages done with, by topic and what became of them.",
            ("topic", "fate"),
            registry=registry,
        )
        self._retries = Counter(
            "fairlead_ledger_kafka_retries",
            "Writes and commits tried again, by reason.",
            ("reason",),
            registry=registry,
        )
        self._lag = Gauge(
            "fairlead_ledger_kafka_lag_messages",
            "Messages that are not done with, of the partitions that this process reads.",
            ("topic", "partition"),
            registry=registry,
        )
        self._connected = Gauge(
            "fairlead_ledger_kafka_connected", "Whether a broker is connected: 1 or 0.", registry=registry
        )
        age = Gauge(
            "fairlead_ledger_kafka_poll_age_seconds", "Time since messages were last asked for.", registry=registry
        )
        age.set_function(poll_age_s)
        for topic in topics:
            for fate in MessageFate:
                self._messages.labels(topic, fate.value)

    def count(self, topic: str, fate: MessageFate, number: int = 1) -> None:
        """Count messages that are done with."""
        self._messages.labels(topic, fate.value).inc(number)

    def retried(self, reason: str) -> None:
        """Count one more try."""
        self._retries.labels(reason).inc()

    def connected(self, is_connected: bool) -> None:
        """Tell whether a broker is connected."""
        self._connected.set(is_connected)

    def lags(self, lags: Mapping[tuple[str, int], int]) -> None:
        """Tell how far behind this process is; partitions that others read now are no longer told."""
        self._lag.clear()
        for (topic, partition), lag in lags.items():
            self._lag.labels(topic, str(partition)).set(lag)
