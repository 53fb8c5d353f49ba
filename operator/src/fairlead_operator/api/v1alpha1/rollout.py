"""How weight is moved."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fairlead_operator.api.v1alpha1.fields import DAY_S, Duration, Label, Percent, Record, at_most

MOST_STEPS = 32
"""Steps of one rollout."""


class Step(Record):
    """One planned step of a rollout."""

    weights: dict[Label, Percent] = Field(
        min_length=1,
        max_length=32,
        description="Per cent of traffic: per Treatment, or under Canary of the Control's new revision.",
    )
    hold: Annotated[Duration, at_most(90 * DAY_S)] | None = Field(
        default=None,
        description="How long the step lasts while all arms are ready; until somebody decides if left out.",
    )


class Rollout(Record):
    """How weight is moved."""

    strategy: Literal["Manual", "Canary", "Experiment"] = Field(
        default="Manual",
        description="Manual: the weights stand here. Canary: a new revision of the Control by steps. "
        "Experiment: Treatments by steps, decided by an analysis or by somebody.",
    )
    weights: dict[Label, Percent] = Field(
        default={}, max_length=32, description="Manual: per cent of traffic per Treatment; Control takes the rest."
    )
    steps: tuple[Step, ...] = Field(
        default=(), max_length=MOST_STEPS, description="Canary and Experiment: planned steps."
    )
    on_success: Literal["Promote", "Hold"] = Field(
        default="Promote", description="What follows success: the winner takes everything, or somebody decides."
    )
    on_failure: Literal["Rollback", "Hold"] = Field(
        default="Rollback", description="What follows failure: Control takes everything back, or somebody decides."
    )
    progress_deadline: Annotated[Duration, at_most(DAY_S)] = Field(
        default="10m", description="Longest wait for a revision to become ready before the rollout counts as failed."
    )
    keep_previous: Annotated[Duration, at_most(30 * DAY_S)] = Field(
        default="1h", description="How long the last good revision's pods stay warm after it was replaced."
    )
