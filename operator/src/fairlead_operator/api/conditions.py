"""Conditions: what a deployment says about itself, one per aspect, each with a reason from a closed list."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class ConditionType(StrEnum):
    """The aspects."""

    READY = "Ready"
    """All that was asked for is so."""
    SERVABLE = "Servable"
    """Something answers."""
    VARIANTS_READY = "VariantsReady"
    """Every variant's wanted revision is ready."""
    ROUTING_READY = "RoutingReady"
    """The gateway routes as wanted."""
    PROGRESSING = "Progressing"
    """Something is on its way."""


class Reason(StrEnum):
    """Why a condition is as it is."""

    AS_SPECIFIED = "AsSpecified"
    """Nothing is left to do."""
    STARTING = "Starting"
    """A server was started and is not ready yet."""
    NOT_READY = "NotReady"
    """A server does not answer its readiness probe."""
    DEGRADED = "Degraded"
    """Control has no ready server; it keeps its share, because nothing is better than control."""
    CRASHED = "Crashed"
    """A server's process ended; it is being restarted."""
    MODEL_REFUSED = "ModelRefused"
    """A server refused its model, contract or digest; it is not restarted until the spec changes."""
    WEIGHT_WITHDRAWN = "WeightWithdrawn"
    """A treatment without a ready server; control has its share for now."""
    GATEWAY_REFUSED = "GatewayRefused"
    """The gateway refused a configuration or did not confirm it."""
    INVALID_SPEC = "InvalidSpec"
    """The manifest as it stands cannot be used; the last good one is in force."""
    PAUSED = "Paused"
    """``spec.paused`` is true; changes wait."""
    STOPPED = "Stopped"
    """Nothing is running."""


class Condition(BaseModel):
    """One aspect."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, serialize_by_alias=True
    )

    type: ConditionType = Field(description="The aspect.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: Reason = Field(description="Why.")
    message: str = Field(description="What it means here and what to do.")
    observed_generation: int = Field(description="Generation of the spec that it speaks of.")
    last_transition_time: str = Field(default="", description="When the status last changed, ISO 8601 UTC.")


def stamped(fresh: Iterable[Condition], before: Iterable[Condition], now: str) -> tuple[Condition, ...]:
    """Return ``fresh`` with transition times: kept where the status is the same as ``before``, else ``now``."""
    since = {(old.type, old.status): old.last_transition_time for old in before}
    return tuple(
        new.model_copy(update={"last_transition_time": since.get((new.type, new.status), now)}) for new in fresh
    )
