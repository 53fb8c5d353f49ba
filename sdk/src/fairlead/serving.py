"""What a running model server tells about itself: written by the server, read by whoever operates it.

The report travels in the ``parameters`` of V2 model metadata (``GET /v2/models/NAME``), which are scalars by the
protocol; so counts are flat, and lists are JSON text. Counters start at 0 with the process.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fairlead.contract import Digest

MAX_DIFFERENCES = 8
"""Differences that are told one by one."""
MAX_DIFFERENCE_CHARACTERS = 240

_COUNT_PREFIX = "requests_"
_REGISTRY_PREFIX = "registry_"
_FEEDBACK_PREFIX = "feedback_"
_DIGESTS = ("contract_digest", "contract_fingerprint")
"""Fields that are told as an empty text where there is none."""


class ReportError(ValueError):
    """An answer is not a server's report; the message names the field."""


class _Record(BaseModel):
    # A newer server may tell more than its reader knows.
    model_config = ConfigDict(frozen=True, extra="ignore")


class ExperimentCounts(_Record):
    """Answered requests by what their experiment header came to."""

    exposed: int = Field(default=0, ge=0)
    """The header verifies, and the unit belongs to this arm."""
    mismatched: int = Field(default=0, ge=0)
    """The header verifies, and the unit belongs to another arm: gateway and law disagree."""
    shadow: int = Field(default=0, ge=0)
    """The header verifies, and is another revision's: a mirrored copy."""
    rejected: int = Field(default=0, ge=0)
    """The header does not verify, or the unit is not one value of 1 to 256 bytes."""

    @property
    def verified(self) -> int:
        """Requests whose header and unit are right."""
        return self.exposed + self.mismatched + self.shadow

    @property
    def with_header(self) -> int:
        """Requests that came with an experiment header."""
        return self.verified + self.rejected


class RegistryReport(_Record):
    """The feature service as registered, beside the one that the model was trained with."""

    fingerprint: Digest | None = None
    """Of the service as it was registered when it was last read; None if it was never read, or is gone."""
    differences: tuple[str, ...] = ()
    """What differs from the contract, feature by feature; at most ``MAX_DIFFERENCES``, each of bounded length."""
    differences_total: int = Field(default=0, ge=0)
    reads: int = Field(default=0, ge=0)
    """Successful reads since the start."""
    failures: int = Field(default=0, ge=0)
    """Failed or overdue reads, once the registry had been read."""

    @classmethod
    def of(cls, fingerprint: str | None, differences: Iterable[str], *, reads: int, failures: int) -> Self:
        """Make a report that tells as many differences as there is room for."""
        every = tuple(differences)
        told = tuple(text[:MAX_DIFFERENCE_CHARACTERS] for text in every[:MAX_DIFFERENCES])
        return cls(
            fingerprint=fingerprint, differences=told, differences_total=len(every), reads=reads, failures=failures
        )

    @property
    def fits(self) -> bool | None:
        """Whether the registered service is the contract's; None if nobody could tell yet."""
        if self.differences_total:
            return False
        return None if self.fingerprint is None else True


class FeedbackReport(_Record):
    """What became of the server's reports to the ledger; totals since the start."""

    configured: bool = False
    """Whether the server is told of a ledger now."""
    digest: str = Field(default="", max_length=64)
    """`fairlead.feedback.serving.Feedback.digest` of what it is told; empty if it is told nothing, or cannot say."""
    waiting: int = Field(default=0, ge=0)
    """Reports that the ledger has not taken yet."""
    dropped: int = Field(default=0, ge=0)
    """Requests that found no room, and are in no report."""
    refused: int = Field(default=0, ge=0)
    """Reports that the ledger will never take."""
    last_success_us: int = Field(default=0, ge=0)
    """When it last took one, microseconds since 1970-01-01 UTC by the server's clock; 0 for never."""
    failure: str = ""
    """Why the last report was not taken; empty if it was."""


class ServerReport(_Record):
    """One server process and the model in it."""

    model_digest: Digest
    contract_digest: Digest | None
    """None for a model without a contract."""
    contract_fingerprint: Digest | None
    """Of the feature service that the model was trained with; None for a model without a contract."""
    feature_service: str
    """Empty for a model without a contract."""
    variant: str
    revision: str
    ready: bool
    not_ready_reason: str = ""
    """Empty if ready."""
    degraded: bool
    """Whether answers are made without the online store at the moment."""
    registry: RegistryReport = RegistryReport()
    requests: ExperimentCounts = ExperimentCounts()
    feedback: FeedbackReport = FeedbackReport()

    def to_parameters(self) -> dict[str, str | bool | int]:
        """Return V2 parameters: scalars by flat names, the inverse of :meth:`from_metadata`."""
        own = self.model_dump(exclude={"registry", "requests", "feedback"})
        own |= {name: own[name] or "" for name in _DIGESTS}
        registry = self.registry.model_dump(mode="json")
        registry["fingerprint"] = registry["fingerprint"] or ""
        registry["differences"] = json.dumps(registry["differences"], ensure_ascii=False)
        counts = _prefixed(_COUNT_PREFIX, self.requests.model_dump())
        return (
            own
            | _prefixed(_REGISTRY_PREFIX, registry)
            | counts
            | _prefixed(_FEEDBACK_PREFIX, self.feedback.model_dump())
        )

    @classmethod
    def from_metadata(cls, document: Mapping[str, Any]) -> ServerReport:
        """Read the report out of V2 model metadata.

        Args:
            document: The answer to ``GET /v2/models/NAME``, as parsed JSON.

        Raises:
            ReportError: It is no such answer, or a field is missing or wrong.
        """
        parameters = document.get("parameters") if isinstance(document, Mapping) else None
        if not isinstance(parameters, Mapping):
            raise ReportError("no report: the metadata has no parameters; is this a Fairlead server?")
        registry = _without(_REGISTRY_PREFIX, parameters)
        try:
            registry["fingerprint"] = registry.get("fingerprint") or None
            registry["differences"] = json.loads(registry.get("differences", "[]"))
            nested = {
                "registry": registry,
                "requests": _without(_COUNT_PREFIX, parameters),
                "feedback": _without(_FEEDBACK_PREFIX, parameters),
            }
            digests = {name: parameters[name] or None for name in _DIGESTS if name in parameters}
            return cls.model_validate({**parameters, **digests, **nested})
        except ValidationError as error:
            first = error.errors()[0]
            raise ReportError(f"report field {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        except (TypeError, ValueError):
            raise ReportError("report field registry_differences: not a JSON list") from None


def _prefixed(prefix: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in fields.items()}


def _without(prefix: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in fields.items() if name.startswith(prefix)}
