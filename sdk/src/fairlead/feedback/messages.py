"""What servers and applications tell the ledger: the bodies of its intake, over HTTP and Kafka alike.

Times are microseconds since 1970-01-01 UTC, by the clock of whoever tells.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MOST_EXPOSURES = 5000
"""Entries of each kind in one report of a server."""
MOST_OUTCOMES = 5000
"""Outcomes in one batch of an application."""

Salt = Annotated[str, StringConstraints(pattern=r"^[a-z0-9./:-]{3,160}$")]
VariantName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
UnitDigest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
MetricName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=63)]
TimeUs = Annotated[int, Field(ge=0, lt=1 << 62)]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Message(BaseModel):
    """A part of a body: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Arm(Message):
    """Which arm of which experiment, in which phase."""

    salt: Salt
    phase: int = Field(ge=0, lt=1 << 16)
    variant: VariantName
    revision: str = Field(min_length=1, max_length=63)


class Exposure(Arm):
    """A unit was answered by an arm for the first time that its server knows of, in a phase."""

    unit: UnitDigest
    at_us: TimeUs
    covariate: Finite | None = None
    """Value of the design's covariate at that moment; None if the design names none, or it had no value."""


class Failure(StrEnum):
    """Who failed where a request was answered with an error of ours, or not at all."""

    MODEL = "Model"
    """The model, or the server around it, on a request that could be answered."""
    FEATURE_STORE = "FeatureStore"
    """The online store gave an error or no answer in time, and a feature's policy accepts no substitute."""
    NOT_READY = "NotReady"
    """The server had no model to answer with, not yet or not any more."""
    NO_ANSWER = "NoAnswer"
    """No server answered the gateway: none was there, it was overloaded, or too slow."""


class UnitCounts(Arm):
    """What a unit's requests came to since the server's last report."""

    unit: UnitDigest
    requests: Count
    errors: Count = 0
    """Answered with 5xx, or 429 of a model that is overloaded, or what gRPC has for them."""
    failures: dict[Failure, Count] = {}
    """Of the errors, how many by who failed; of the rest it is not known. Left out of a report where it is empty."""
    degraded: Count = 0
    """Answered without the online store."""
    latency_us: Count = 0
    """Sum over the requests of the time from the request's last byte to the answer's first."""

    @model_validator(mode="after")
    def _fails_as_often_as_it_says(self) -> Self:
        if self.failures and sum(self.failures.values()) > self.errors:
            raise ValueError("failures are errors: all of them cannot be more")
        return self


class Block(Arm):
    """Requests of one server within one minute: what strikes many units at once is seen here.

    A minute may be told in several reports, each with the requests since the last one; they add up.
    """

    minute: Count
    """Minutes since 1970-01-01 UTC."""
    requests: Count
    errors: Count = 0
    latency_us: Count = 0
    latency_counts: dict[int, Count] = Field(default={}, max_length=1024)
    """Requests by `fairlead.experiment.tail.edge_of` their latency in milliseconds; quantiles of it need them."""


class Mismatch(Arm):
    """Requests whose unit belongs to another arm than the gateway's route said."""

    requests: Count


class ExposureReport(Message):
    """What a server tells at once. Told again under the same server and sequence it counts once."""

    server: str = Field(min_length=1, max_length=128)
    """Names the process, anew with each start."""
    sequence: Count
    """Number of the report, from 0."""
    exposures: tuple[Exposure, ...] = Field(default=(), max_length=MOST_EXPOSURES)
    counts: tuple[UnitCounts, ...] = Field(default=(), max_length=MOST_EXPOSURES)
    blocks: tuple[Block, ...] = Field(default=(), max_length=MOST_EXPOSURES)
    mismatches: tuple[Mismatch, ...] = Field(default=(), max_length=MOST_EXPOSURES)
    dropped: Count = 0
    """Requests since the last report that found no room, and are in none of the above."""


class Outcome(Message):
    """What became of a prediction: a metric's value, or the actual from which declared metrics are computed.

    It names the prediction by its token; or the unit, the arm of which then is the unit's own.
    """

    prediction_id: str | None = Field(default=None, max_length=1024)
    """The token."""
    experiment: Salt | None = None
    """With ``unit``, where there is no token."""
    unit: str | None = Field(default=None, min_length=1, max_length=256)
    """The unit as the application knows it."""
    at_us: TimeUs | None = None
    """With ``unit``: when the prediction was, or what it is about happened."""
    id: str | None = Field(default=None, max_length=128)
    """With ``unit``: makes the outcome one; told again with the same id it counts once."""
    row: int | None = Field(default=None, ge=0)
    """Row of the request; needed where it had several."""
    metric: MetricName | None = None
    value: Finite | None = None
    actual: Finite | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        by_unit = (self.experiment, self.unit, self.at_us, self.id)
        if (self.prediction_id is None) == (self.unit is None):
            raise ValueError("give prediction_id, or unit with experiment, at_us and id")
        if self.unit is not None and None in by_unit:
            raise ValueError("unit needs experiment, at_us and id beside it")
        if (self.metric is None) != (self.value is None):
            raise ValueError("metric and value go together")
        if (self.metric is None) == (self.actual is None):
            raise ValueError("give metric and value, or actual")
        return self


class OutcomeBatch(Message):
    """Outcomes that are told at once."""

    outcomes: tuple[Outcome, ...] = Field(max_length=MOST_OUTCOMES)


class Fate(StrEnum):
    """What became of an outcome."""

    ACCEPTED = "Accepted"
    DUPLICATE = "Duplicate"
    """It was told before; what was told first counts."""
    FORGED = "Forged"
    """Its token is not signed by a known key."""
    MALFORMED = "Malformed"
    """Its token has no token's form, or the actual needs an output or a row that is missing."""
    UNKNOWN_EXPERIMENT = "UnknownExperiment"
    UNKNOWN_METRIC = "UnknownMetric"
    """The design declares no such metric."""
    UNKNOWN_UNIT = "UnknownUnit"
    """The unit was not exposed in that experiment."""
    OUT_OF_WINDOW = "OutOfWindow"
    """It came later than the outcome window allows, or is older or newer than can be."""


class Refusal(Message):
    """An outcome that was not taken."""

    index: int
    """In the batch, from 0."""
    fate: Fate
    message: str


class OutcomeAnswer(Message):
    """What became of a batch."""

    accepted: Count
    duplicates: Count
    refused: tuple[Refusal, ...] = ()
