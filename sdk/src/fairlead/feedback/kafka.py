"""Kafka as a carrier of feedback: the topics' names, and librdkafka's settings from a file that may hold secrets."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

EXPOSURES_TOPIC = "fairlead.exposures"
OUTCOMES_TOPIC = "fairlead.outcomes"
ENCODING_HEADER = "content-encoding"
"""Header of a message, as over HTTP: ``gzip``, or none."""

SINK_OWN = ("bootstrap.servers", "acks", "enable.idempotence", "message.timeout.ms", "log_level")
"""Settings that a server's sink sets itself."""
_LOADS_CODE = ("plugin.library.paths", "ssl.engine.location", "ssl.providers")


class KafkaSettingsError(ValueError):
    """Settings are none of librdkafka's, or may not be set; the message names them, never a value."""


@dataclass(frozen=True, slots=True)
class KafkaTarget:
    """Where servers send their reports instead of over HTTP."""

    bootstrap_servers: str
    """``host:port``, separated by commas."""
    topic: str = EXPOSURES_TOPIC
    config: Mapping[str, str] = field(default_factory=dict, repr=False)
    """More settings of librdkafka: TLS, SASL. Certificates as text, ``ssl.ca.pem``: servers have no files of them."""


def loaded(text: str) -> Mapping[str, str]:
    """Read settings of librdkafka: a JSON object, or lines ``name=value`` with comments after ``#``.

    Raises:
        KafkaSettingsError: It is neither.
    """
    return of_json(text) if text.lstrip().startswith("{") else _of_lines(text)


def of_json(text: str) -> Mapping[str, str]:
    """Read settings from a JSON object of texts, numbers and truth values.

    Raises:
        KafkaSettingsError: It is none.
    """
    try:
        found = json.loads(text)
    except ValueError:
        raise KafkaSettingsError("is neither a JSON object nor lines of name=value") from None
    if not isinstance(found, dict) or any(isinstance(value, dict | list) or value is None for value in found.values()):
        raise KafkaSettingsError("is no JSON object of texts and numbers")
    return {name: _text(value) for name, value in found.items()}


def checked(settings: Mapping[str, str], own: Collection[str]) -> Mapping[str, str]:
    """Return settings, if all of them may be set.

    Args:
        settings: Of librdkafka.
        own: Those that the program sets itself, since what it promises rests on them.

    Raises:
        KafkaSettingsError: One may not.
    """
    for name in settings:
        if name in own:
            raise KafkaSettingsError(f"{name} is set by the program itself; leave it out")
        if name in _LOADS_CODE:
            raise KafkaSettingsError(f"{name} loads code; it cannot be set")
    return settings


def _of_lines(text: str) -> Mapping[str, str]:
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith(("#", "!")):
            continue
        name, equals, value = stripped.partition("=")
        if not equals:
            raise KafkaSettingsError(f"line {number} is not name=value")
        found[name.strip()] = value.strip()
    return found


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)
