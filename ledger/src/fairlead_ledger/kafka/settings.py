"""What the command line says of Kafka, as librdkafka's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairlead.feedback.kafka import EXPOSURES_TOPIC, OUTCOMES_TOPIC, KafkaSettingsError, checked, loaded
from fairlead_ledger.errors import StartupError

_COMMON = ("bootstrap.servers", "log_level", "statistics.interval.ms")
_CONSUMER = ("group.id", "enable.auto.commit", "enable.auto.offset.store", "partition.assignment.strategy")
_PRODUCER = ("acks", "enable.idempotence", "message.max.bytes")
_FETCHED_KBYTES = 16 * 1024
_STATISTICS_MS = 2000
_METADATA_MS = 10_000
_UNDELIVERED_MS = 10_000


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Where messages come from."""

    bootstrap_servers: str
    group: str = "fairlead-ledger"
    """The consumer group that all processes of a ledger share."""
    exposures_topic: str = EXPOSURES_TOPIC
    outcomes_topic: str = OUTCOMES_TOPIC
    config: Mapping[str, str] = field(default_factory=dict, repr=False)
    """More settings of librdkafka: TLS, SASL."""

    @property
    def topics(self) -> tuple[str, str]:
        """Both topics; what servers told is taken first."""
        return (self.exposures_topic, self.outcomes_topic)

    def consumer(self) -> dict[str, Any]:
        """Return a consumer's settings: nothing is skipped, and nothing committed but by the ledger."""
        return {
            "auto.offset.reset": "earliest",
            "topic.metadata.refresh.interval.ms": _METADATA_MS,
            "queued.max.messages.kbytes": _FETCHED_KBYTES,
            **self._shared(),
            "group.id": self.group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "partition.assignment.strategy": "range,roundrobin",  # all at once: what is in hand is then nobody's
            "statistics.interval.ms": _STATISTICS_MS,
        }

    def producer(self) -> dict[str, Any]:
        """Return settings of the producer of dead letters."""
        meant_for_consumers = (
            "auto.",
            "fetch.",
            "queued.",
            "session.",
            "heartbeat.",
            "max.poll.",
            "group.",
            "isolation.",
        )
        shared = {name: value for name, value in self._shared().items() if not name.startswith(meant_for_consumers)}
        return {
            "message.timeout.ms": _UNDELIVERED_MS,
            "topic.metadata.propagation.max.ms": _UNDELIVERED_MS // 2,
            **shared,
            "acks": "all",
            "enable.idempotence": True,
            "message.max.bytes": 1_000_000_000,  # the broker's word decides
        }

    def _shared(self) -> dict[str, Any]:
        return {**self.config, "bootstrap.servers": self.bootstrap_servers, "log_level": 0}


def config_of(path: Path | None) -> Mapping[str, str]:
    """Return the settings in the file of ``--kafka-config``; none without it.

    Raises:
        StartupError: It cannot be read, or sets what it may not.
    """
    if path is None:
        return {}
    try:
        return checked(loaded(path.read_text("utf-8")), (*_COMMON, *_CONSUMER, *_PRODUCER))
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"--kafka-config {path}: {getattr(error, 'strerror', None) or 'is no text'}") from None
    except KafkaSettingsError as error:
        raise StartupError(f"--kafka-config {path}: {error}") from None
