"""What a running server is told of feedback: where the ledger is, what signs its tokens, what to record.

It is the file ``feedback.json`` in the serving directory, written by the operator and read again when it changes. A
server without it answers no token and reports nothing.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fairlead.feedback.kafka import EXPOSURES_TOPIC, SINK_OWN, KafkaSettingsError, KafkaTarget, checked
from fairlead.feedback.keys import KeyRing, KeyRingError
from fairlead.feedback.messages import Salt

FEEDBACK_FILE = "feedback.json"
"""Name of the file in the serving directory."""
_DIGEST_CHARACTERS = 32


class FeedbackError(ValueError):
    """A text does not tell a server of feedback; the message names the field, never a secret."""


class _Kafka(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    bootstrap_servers: str = Field(min_length=1, max_length=4096)
    topic: str = Field(default=EXPOSURES_TOPIC, pattern=r"^[A-Za-z0-9._-]{1,200}$")
    config: dict[str, str] = {}

    @field_validator("config")
    @classmethod
    def _may_be_set(cls, config: dict[str, str]) -> dict[str, str]:
        try:
            return dict(checked(config, SINK_OWN))
        except KafkaSettingsError as error:
            raise ValueError(str(error)) from None

    @property
    def target(self) -> KafkaTarget:
        return KafkaTarget(self.bootstrap_servers, self.topic, self.config)


class _File(BaseModel):
    # A server outlives its operator's upgrades: a newer one may tell more than the server knows.
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    ledger: str = Field(max_length=2048)
    api_key: str | None = Field(default=None, pattern=r"^[\x21-\x7e]{3,512}$")
    keys: dict[str, Any]
    covariates: dict[Salt, str] = {}
    kafka: _Kafka | None = None

    @field_validator("ledger")
    @classmethod
    def _is_address(cls, text: str) -> str:
        parts = urlsplit(text)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:  # port checks itself
            raise ValueError("must be http:// or https:// and a host")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("must have no user, query or fragment; an API key has its own field")
        return text.rstrip("/")


@dataclass(frozen=True, slots=True)
class Feedback:
    """What one deployment's servers are told of feedback."""

    ledger: str
    """Address of the ledger, ``http://…`` or ``https://…``, without a final slash; paths such as ``/v1`` follow."""
    keys: KeyRing
    """The deployment's own ring, never the root."""
    api_key: str | None = field(default=None, repr=False)
    """``<id>.<secret>``, sent as bearer token; None for a ledger that is open."""
    covariates: Mapping[str, str] = field(default_factory=dict)
    """By salt, the feature (``view__name``) whose value is recorded at a unit's first exposure."""
    kafka: KafkaTarget | None = None
    """Where reports go instead of to the ledger's address; None for nowhere else."""
    digest: str = field(default="", compare=False)
    """Names the text that this was read from, and tells nothing of it to whoever has not the ring; else empty."""

    def dumped(self) -> str:
        """Return the file's text: JSON with sorted keys, the same for the same content."""
        content: dict[str, Any] = {
            "ledger": self.ledger,
            "api_key": self.api_key,
            "keys": json.loads(self.keys.dumped()),
            "covariates": dict(self.covariates),
        }
        if self.kafka is not None:
            content["kafka"] = asdict(self.kafka)
        return json.dumps(content, sort_keys=True)

    @classmethod
    def loaded(cls, text: str | bytes) -> Self:
        """Read what :meth:`dumped` wrote.

        Raises:
            FeedbackError: It is something else.
        """
        try:
            file = _File.model_validate_json(text)
            keys = KeyRing.loaded(json.dumps(file.keys))
        except ValidationError as error:
            raise FeedbackError(f"{FEEDBACK_FILE}: {_first(error)}") from None
        except KeyRingError as error:
            raise FeedbackError(f"{FEEDBACK_FILE}: keys: {error}") from None
        kafka = None if file.kafka is None else file.kafka.target
        raw = text.encode() if isinstance(text, str) else text
        digest = hmac.digest(keys.units, raw, "sha256").hex()[:_DIGEST_CHARACTERS]
        return cls(file.ledger, keys, file.api_key, file.covariates, kafka, digest)


def _first(error: ValidationError) -> str:
    """Name the first field at fault and the rule that it breaks; a map's key is no secret, a value may be."""
    first = error.errors(include_input=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"])) or "JSON"
    return f"{place}: {first['msg']}"
