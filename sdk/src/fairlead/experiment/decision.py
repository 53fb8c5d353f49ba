"""What was decided of an experiment: the operator tells it to the ledger, which makes the decision record of it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from fairlead.experiment.design import Part
from fairlead.feedback.messages import TimeUs, VariantName


class Action(StrEnum):
    """What was done."""

    PROMOTE = "Promote"
    """The winner took everything."""
    ROLLBACK = "Rollback"
    """Control took everything back."""
    HOLD = "Hold"
    """Weights stay as they are until somebody decides; a later decision may follow."""
    END = "End"
    """Somebody ended it by hand, whatever it said; weights are theirs to set."""


class Decision(Part):
    """Body of ``POST /v1/experiments/{namespace}/{name}/{id}/decision``; told again it changes nothing."""

    action: Action
    reason: str = Field(pattern=r"^[A-Z][A-Za-z0-9]{0,127}$")
    """A reason of a report, or of the rollout: Requested, GapsExceeded, AssignmentInvalid, Superseded."""
    winner: VariantName | None = None
    """Treatment that was promoted."""
    phase: int = Field(ge=0, lt=1 << 16)
    """Step that the experiment had come to; the report of the record is of it."""
    at_us: TimeUs
    """When it was decided, by the operator's clock."""
