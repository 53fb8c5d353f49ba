"""What a feature can be at the moment of a prediction, and what is done about it.

The six states are what a careful reader of a Feast online store can tell apart; Feast itself reports most of
them as PRESENT. Every feature has an action for each state.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class FeatureState(StrEnum):
    """How a feature was found in the online store."""

    PRESENT = "PRESENT"
    """A value, not older than the view's ttl."""
    NULL = "NULL"
    """The row was written without a value for this feature."""
    NOT_FOUND = "NOT_FOUND"
    """The store has no row for the entity in this view."""
    NEVER_WRITTEN = "NEVER_WRITTEN"
    """The row is there, this feature was never part of it: the contract is newer than the data."""
    STALE = "STALE"
    """A value older than the view's ttl (or a stricter maximum age)."""
    STORE_ERROR = "STORE_ERROR"
    """The store failed or did not answer within the deadline."""


class Action(StrEnum):
    """What the model sees for a feature in a given state. Spelled as in a ModelDeployment."""

    USE = "Use"
    """The value as it was read (a null stays a null)."""
    DEFAULT = "Default"
    """The contract's default for this feature."""
    NULL = "Null"
    """A missing value: NaN for floats. Only for models trained with it."""
    LAST_GOOD = "LastGood"
    """The last value this server read for the same entity, within the ttl; else the default."""
    REJECT = "Reject"
    """The request is refused, naming the feature."""


class Policy(BaseModel):
    """One action per state other than PRESENT."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    null: Action = Action.DEFAULT
    not_found: Action = Action.DEFAULT
    never_written: Action = Action.DEFAULT
    stale: Action = Action.DEFAULT
    store_error: Action = Action.DEFAULT

    def action(self, state: FeatureState) -> Action:
        """Return what to do with a feature found in ``state``."""
        if state is FeatureState.PRESENT:
            return Action.USE
        found: Action = getattr(self, state.value.lower())
        return found

    @property
    def feeds_default(self) -> bool:
        """Whether some state makes the model see the contract's default."""
        return not {Action.DEFAULT, Action.LAST_GOOD}.isdisjoint(self._actions())

    @property
    def feeds_missing(self) -> bool:
        """Whether some state makes the model see a missing value, whatever the default."""
        return self.null is Action.USE or Action.NULL in self._actions()

    @property
    def answers_without_store(self) -> bool:
        """Whether a prediction is still allowed while the store does not answer."""
        return self.store_error is not Action.REJECT

    def _actions(self) -> set[Action]:
        return {self.null, self.not_found, self.never_written, self.stale, self.store_error}


class Hydration(BaseModel):
    """What a deployment asks of hydration; None leaves a choice to the model's contract."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deadline_s: float = Field(default=0.1, gt=0, le=60)
    """Longest wait for the online store, seconds; beyond it every feature still missing is STORE_ERROR."""
    on_missing: Literal[Action.DEFAULT, Action.NULL, Action.REJECT] | None = None
    """For NULL, NOT_FOUND and NEVER_WRITTEN."""
    on_stale: Literal[Action.USE, Action.DEFAULT, Action.NULL, Action.REJECT] | None = None
    on_store_error: Literal[Action.DEFAULT, Action.NULL, Action.LAST_GOOD, Action.REJECT] | None = None
    max_age_s: dict[str, float] = {}
    """Age in seconds beyond which a view's values are STALE; it can only be stricter than the view's ttl."""

    def applied_to(self, policy: Policy) -> Policy:
        """Return ``policy`` with this deployment's choices over it."""
        chosen: dict[str, Action] = {}
        if self.on_missing is not None:
            chosen |= dict.fromkeys(("null", "not_found", "never_written"), self.on_missing)
        if self.on_stale is not None:
            chosen["stale"] = self.on_stale
        if self.on_store_error is not None:
            chosen["store_error"] = self.on_store_error
        return policy.model_copy(update=chosen)

    def max_age_of(self, view: str, ttl_s: float | None) -> float | None:
        """Return the age in seconds beyond which values of ``view`` are STALE; None if never."""
        limits = [age for age in (ttl_s, self.max_age_s.get(view)) if age is not None]
        return min(limits) if limits else None
