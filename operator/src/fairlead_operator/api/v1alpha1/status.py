"""What is: written by the platform, never by users."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fairlead_operator.api.conditions import Condition
from fairlead_operator.api.v1alpha1.fields import Percent, Record


class VariantFailure(Record):
    """Why a variant last failed."""

    reason: str = Field(max_length=128, description="CamelCase reason.")
    message: str = Field(max_length=4096, description="What happened and what to do.")


class VariantStatus(Record):
    """How one variant is."""

    name: str = Field(max_length=63, description="Name of the variant.")
    role: str = Field(max_length=16, description="Role of the variant.")
    revision: str = Field(max_length=63, description="Revision wanted for it.")
    serving: str | None = Field(default=None, max_length=63, description="Revision that the route names for it.")
    ready: bool = Field(description="Whether the wanted revision is ready.")
    replicas: int = Field(ge=0, le=1_000_000, description="Ready server processes or pods.")
    weight: Percent = Field(description="Per cent of traffic in force.")
    model_digest: str = Field(max_length=128, description="Digest of the model file.")
    contract_digest: str | None = Field(
        default=None, max_length=128, description="Digest of the contract, as the server reports it."
    )
    restarts: int = Field(
        default=0, ge=0, le=2**31 - 1, description="Restarts since its process or pods were first started."
    )
    last_failure: VariantFailure | None = Field(default=None, description="Why it last failed.")


class Url(Record):
    """Where clients call."""

    rest: str = Field(max_length=512, description="Base of V1 and V2 REST.")
    grpc: str = Field(max_length=512, description="Target of V2 gRPC.")
    internal: str | None = Field(
        default=None, max_length=512, description="Cluster: the gateway's Service, to be called with the Host of rest."
    )


class Decision(Record):
    """How a rollout was decided."""

    verdict: str = Field(max_length=32, description="Promote, Rollback or Hold.")
    reason: str = Field(max_length=128, description="CamelCase reason.")
    variant: str | None = Field(default=None, max_length=63, description="The winner of a promotion.")
    at: str = Field(max_length=40, description="When, ISO 8601 UTC.")
    analysis: str | None = Field(
        default=None, max_length=32, description="Verdict of the analysis that decided: Pass, Fail or Insufficient."
    )
    record: str | None = Field(
        default=None, max_length=1024, description="Address of the decision record; none until the ledger has it."
    )
    record_digest: str | None = Field(
        default=None,
        max_length=128,
        description="Hash that the record has of itself; kept here apart from it.",
    )


class RolloutStatus(Record):
    """Where the rollout stands."""

    state: str = Field(default="Stable", max_length=32, description="State of the rollout.")
    stable: str | None = Field(default=None, max_length=63, description="Revision that serves what no candidate has.")
    candidate: str | None = Field(default=None, max_length=63, description="Revision that is being rolled out.")
    phase: int = Field(default=0, ge=0, le=2**31 - 1, description="Weights that changed under one salt, counted.")
    step: int = Field(default=0, ge=0, le=64, description="Number of the planned step, from 0.")
    step_started_at: str | None = Field(default=None, max_length=40, description="When it began, ISO 8601 UTC.")
    weight: str | None = Field(default=None, max_length=64, description="Weights in force of all candidates, per cent.")
    paused_at: str | None = Field(
        default=None, max_length=40, description="Since when everything is paused, ISO 8601 UTC; none if it is not."
    )
    decision: Decision | None = Field(default=None, description="How it was decided.")
    verdict: str | None = Field(
        default=None,
        max_length=128,
        description="How it was decided, and why; before that what the analysis says now.",
    )


Number = Annotated[float, Field(ge=-1e300, le=1e300)]


class SampleRatio(Record):
    """Whether arms have as many units as was planned."""

    ok: bool = Field(description="Whether nothing speaks against it.")
    p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Always-valid p-value of the shares that were seen; none before any unit."
    )


class MetricStatus(Record):
    """What is known of one metric and one Treatment in the step in force."""

    name: str = Field(max_length=63, description="Name of the metric.")
    variant: str = Field(max_length=63, description="The Treatment.")
    role: str = Field(max_length=16, description="Objective or Guardrail.")
    control: Number | None = Field(default=None, description="Its value under Control.")
    treatment: Number | None = Field(default=None, description="Its value under the Treatment.")
    scale: str = Field(max_length=16, description="Relative or Absolute: what effect, low and high are.")
    effect: Number | None = Field(default=None, description="Estimated difference.")
    low: Number | None = Field(default=None, description="Lower end of its interval, valid at any look.")
    high: Number | None = Field(default=None, description="Upper end of its interval.")
    verdict: str = Field(max_length=32, description="Pass, Fail, Insufficient or NoData.")


class ExperimentStatus(Record):
    """The experiment in force."""

    id: str = Field(max_length=63, description="Id of the experiment.")
    salt: str = Field(max_length=256, description="Salt of the assignment.")
    started_at: str | None = Field(default=None, max_length=40, description="When its first phase began, ISO 8601 UTC.")
    observing: bool = Field(description="Whether experiment headers are sent: every arm is in traffic.")
    design: str | None = Field(default=None, max_length=128, description="Digest of its design, as registered.")
    verdict: str | None = Field(default=None, max_length=32, description="Verdict of the last analysis.")
    reason: str | None = Field(default=None, max_length=128, description="Its CamelCase reason.")
    page: str | None = Field(default=None, max_length=1024, description="Address of its page.")
    units: dict[str, Annotated[int, Field(ge=0, le=2**53)]] = Field(
        default={}, max_length=33, description="Units exposed in the step in force, by variant."
    )
    sample_ratio: SampleRatio | None = Field(default=None, description="Whether arms have as many units as planned.")
    metrics: tuple[MetricStatus, ...] = Field(
        default=(), max_length=544, description="Every metric and Treatment in the step in force."
    )


class HistoryEntry(Record):
    """A rollout that is over."""

    revision: str = Field(max_length=63, description="Revision that was rolled out.")
    started_at: str = Field(max_length=40, description="When it began, ISO 8601 UTC.")
    ended_at: str = Field(max_length=40, description="When it was decided, ISO 8601 UTC.")
    verdict: str = Field(max_length=32, description="Promote or Rollback.")
    reason: str = Field(max_length=128, description="CamelCase reason.")


class Status(Record):
    """What is."""

    observed_generation: int = Field(ge=0, le=2**53, description="Generation of the spec that this describes.")
    url: Url | None = Field(default=None, description="Where clients call.")
    conditions: tuple[Condition, ...] = Field(max_length=16, description="One per aspect.")
    variants: tuple[VariantStatus, ...] = Field(
        default=(), max_length=33, description="One per variant, in the spec's order."
    )
    rollout: RolloutStatus = Field(default=RolloutStatus(), description="Where the rollout stands.")
    experiment: ExperimentStatus | None = Field(default=None, description="The experiment in force.")
    history: tuple[HistoryEntry, ...] = Field(
        default=(), max_length=100, description="Rollouts that are over, newest first."
    )
    serving_release: str = Field(max_length=64, description="Release of the model server in force.")
    simulated_time: str | None = Field(
        default=None, max_length=40, description="Time of a replay, ISO 8601; real time if absent."
    )
