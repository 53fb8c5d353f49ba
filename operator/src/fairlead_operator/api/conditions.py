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
    FEATURES_READY = "FeaturesReady"
    """The feature store is there, and its features are those that the models were trained with."""
    ROUTING_READY = "RoutingReady"
    """The gateway routes as wanted."""
    EXPERIMENT_HEALTHY = "ExperimentHealthy"
    """Every arm is in traffic, units land where the assignment law says, and the comparison is sound."""
    PROGRESSING = "Progressing"
    """Something is on its way."""


class Reason(StrEnum):
    """Why a condition is as it is."""

    AS_SPECIFIED = "AsSpecified"
    """Nothing is left to do."""
    STARTING = "Starting"
    """A server was started and is not ready yet."""
    NOT_READY = "NotReady"
    """No replica of a variant answers its readiness probe."""
    REDUCED = "Reduced"
    """Fewer replicas answer than are wanted; the variant keeps its weight."""
    DEGRADED = "Degraded"
    """Control has no ready server; it keeps its share, because nothing is better than control."""
    CRASHED = "Crashed"
    """A server's process ended; it is being restarted."""
    MODEL_REFUSED = "ModelRefused"
    """A server refused its model, contract or digest; it is not restarted until the spec changes."""
    MODEL_UNAVAILABLE = "ModelUnavailable"
    """The model file could not be fetched: address, credentials, or another file than its digest says."""
    PODS_BLOCKED = "PodsBlocked"
    """Pods cannot be made or started: image, quota, configuration or admission."""
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    """A revision was not ready within ``rollout.progressDeadline``; the rollout counts as failed."""
    WEIGHT_WITHDRAWN = "WeightWithdrawn"
    """A treatment without a ready server; control has its share for now."""
    SCALING_UP = "ScalingUp"
    """A treatment gets the replicas that its next share needs before it gets the share."""
    GATEWAY_REFUSED = "GatewayRefused"
    """The gateway refused a configuration or did not confirm it."""
    ASSIGNMENT_UNPROVEN = "AssignmentUnproven"
    """The gateway has not been seen to split units by the assignment law yet; treatments wait without weight."""
    ASSIGNMENT_INVALID = "AssignmentInvalid"
    """Units do not land where the assignment law says; weight is withdrawn until a new experiment id is given."""
    OBSERVING = "Observing"
    """Every arm is in traffic and exposures are recorded."""
    NOT_OBSERVING = "NotObserving"
    """An arm is out of traffic, so that no experiment header is sent to anyone; the phase goes on afterwards."""
    LEDGER_MISSING = "LedgerMissing"
    """An experiment is to be judged and no ledger is known; no treatment gets weight before one is."""
    LEDGER_UNREACHABLE = "LedgerUnreachable"
    """The ledger does not answer; nothing is promoted, rolled back or ramped up meanwhile."""
    LEDGER_REFUSED = "LedgerRefused"
    """The ledger answers and refuses: the operator's API key, or the request itself."""
    DESIGN_CONFLICT = "DesignConflict"
    """The ledger has another design under the same experiment id; no treatment gets weight."""
    METRIC_UNFIT = "MetricUnfit"
    """A metric does not fit what the model's output means, or the covariate its features; no treatment gains weight."""
    SAMPLE_RATIO = "SampleRatio"
    """The arms' units are not in the planned shares: the comparison is invalid, and the rollout holds."""
    LABEL_COVERAGE = "LabelCoverage"
    """Outcomes are missing more often in one arm: the comparison is invalid, and the rollout holds."""
    SOURCE_DOWN = "SourceDown"
    """A source of the experiment's data has stopped telling; nothing is decided until it tells again."""
    GATEWAY_LOG_UNREADABLE = "GatewayLogUnreadable"
    """The operator may not read the gateway's log: requests that no server answered are missing in the evidence."""
    NO_EXPERIMENT = "NoExperiment"
    """The spec has no experiment."""
    FEATURES_UNKNOWN = "FeaturesUnknown"
    """No server has reported on its features yet."""
    FEATURES_CHANGED = "FeaturesChanged"
    """The registry's features are no longer those that a model was trained with."""
    FEATURE_STORE_NOT_FOUND = "FeatureStoreNotFound"
    """The ConfigMap, Secret or FeatureStore that the spec names is not there, or not ready."""
    RAMPING = "Ramping"
    """A candidate gets its share step by step."""
    DECIDING = "Deciding"
    """The last step is reached and nothing has decided yet."""
    PROMOTING = "Promoting"
    """The winner takes over."""
    ROLLING_BACK = "RollingBack"
    """Control takes everything back."""
    ROLLED_BACK = "RolledBack"
    """The candidate was given up; change the spec to try again."""
    SPEC_BEHIND = "SpecBehind"
    """A treatment was promoted and the spec does not say so yet; commit it as Control."""
    GAPS_EXCEEDED = "GapsExceeded"
    """An arm was out of traffic too often for a fair comparison; the experiment counts as failed."""
    INVALID_SPEC = "InvalidSpec"
    """The manifest as it stands cannot be used; the last good one is in force."""
    PAUSED = "Paused"
    """``spec.paused`` or the pause annotation is set; changes wait."""
    STOPPED = "Stopped"
    """Nothing is running."""
    KSERVE_MISSING = "KServeMissing"
    """KServe's resources are not installed; they are looked for again and again."""
    ISTIO_MISSING = "IstioMissing"
    """Istio's resources are not installed; they are looked for again and again."""
    GATEWAY_NOT_FOUND = "GatewayNotFound"
    """An Istio Gateway that the spec names is not there, or selects no pods."""
    HOST_CONFLICT = "HostConflict"
    """Another ModelDeployment has the host on the same gateway: it is reached there, or is older."""
    FOREIGN_OBJECT = "ForeignObject"
    """An object of the name that is needed belongs to somebody else; it is never taken over."""
    NAME_TOO_LONG = "NameTooLong"
    """Namespace, deployment and variant together are too long for KServe's host names."""
    UNIT_CLAIM_UNAVAILABLE = "UnitClaimUnavailable"
    """No RequestAuthentication on the gateway copies the token's claim into the unit header."""
    FAULT_NOT_ALLOWED = "FaultNotAllowed"
    """Faults were asked for in a namespace that does not allow them; none are injected."""
    REFUSED_BY_API = "RefusedByApi"
    """The Kubernetes API refused an object; the message is its own."""


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
