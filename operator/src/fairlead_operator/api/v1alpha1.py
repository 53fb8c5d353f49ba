"""ModelDeployment, group ``serving.fairlead.dev``, version ``v1alpha1``: the one source of the user's API.

Weights are per cent here, as users write them, with at most two decimals; ``basis_points`` turns them into the
buckets of ``fairlead.Layout``. Durations are texts such as ``20ms``; ``seconds`` turns them into numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from fairlead import BUCKETS
from fairlead.contract import Digest
from fairlead.policy import Action, Hydration
from fairlead.route import OVERRIDE_HEADER, UNIT_HEADER
from fairlead_operator.api.conditions import Condition

GROUP = "serving.fairlead.dev"
VERSION = "v1alpha1"
KIND = "ModelDeployment"

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def seconds(duration: str) -> float:
    """Return a duration such as ``1m30s`` in seconds."""
    return sum(float(number) * _UNITS_S[unit] for number, unit in _DURATION.findall(duration))


def basis_points(per_cent: float) -> int:
    """Return per cent as basis points of ``BUCKETS``."""
    return round(per_cent * BUCKETS / 100)


def _broken(path: tuple[str | int, ...], message: str) -> PydanticCustomError:
    """Return the error for a rule across fields; ``path`` leads from the model to the field in the manifest."""
    return PydanticCustomError("rule", "{message}", {"message": message, "path": path})


def _at_most(limit_s: float) -> AfterValidator:
    def check(duration: str) -> str:
        if not 0 < seconds(duration) <= limit_s:
            raise PydanticCustomError("duration", "{message}", {"message": f"must be over 0 and at most {limit_s:g}s"})
        return duration

    return AfterValidator(check)


def _two_decimals(per_cent: float) -> float:
    if abs(per_cent * 100 - round(per_cent * 100)) > 1e-6:  # noqa: PLR2004 -- far below a basis point, above float noise
        raise PydanticCustomError("weight", "has more than two decimals; the finest step is 0.01 per cent")
    return per_cent


def _tidy(per_cent: float) -> float | int:
    return int(per_cent) if per_cent == int(per_cent) else per_cent


Duration = Annotated[str, StringConstraints(pattern=r"^(\d+(\.\d+)?(ms|s|m|h|d))+$", max_length=32)]
Percent = Annotated[
    float,
    Field(ge=0, le=100),
    AfterValidator(_two_decimals),
    PlainSerializer(_tidy, return_type=float | int),
]
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=64)]


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        populate_by_name=True,
        serialize_by_alias=True,
    )


class Metadata(_Record):
    """Who the deployment is."""

    name: Label = Field(max_length=40, description="Name; with the namespace, part of the salt.")
    namespace: Label = Field(default="default", description="Namespace; on one machine only part of the salt.")
    generation: int = Field(default=1, ge=1, description="Number of the spec, counted by the platform.")
    labels: dict[str, str] = Field(default={}, max_length=64, description="Free labels.")
    annotations: dict[str, str] = Field(default={}, max_length=64, description="Free annotations.")


class LocalName(_Record):
    """A reference by name within the namespace."""

    name: Label = Field(description="Name of the object.")


class FeatureStore(_Record):
    """Where the Feast feature store is described: exactly one of the two."""

    path: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="One machine: folder of feature_store.yaml, or the file; relative to the manifest.",
    )
    config_map_ref: LocalName | None = Field(default=None, description="Cluster: ConfigMap with feature_store.yaml.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.path is None) == (self.config_map_ref is None):
            raise _broken((), "give exactly one of path (one machine) and configMapRef (cluster)")
        return self


class HydrationSpec(_Record):
    """How features are looked up for a request that brings keys."""

    deadline: Annotated[Duration, _at_most(60)] = Field(
        default="100ms", description="Longest wait for the online store; later features count as STORE_ERROR."
    )
    on_missing: Literal["Default", "Null", "Reject"] | None = Field(
        default=None, description="What the model sees for a feature without a value; the contract decides if unset."
    )
    on_stale: Literal["Use", "Default", "Null", "Reject"] | None = Field(
        default=None, description="What the model sees for a value older than its ttl or maxAge."
    )
    on_store_error: Literal["Default", "Null", "LastGood", "Reject"] | None = Field(
        default=None, description="What the model sees while the store fails."
    )
    max_age: dict[str, Annotated[Duration, _at_most(366 * 86400)]] = Field(
        default={}, max_length=256, description="Per feature view, an age stricter than its ttl."
    )

    def policy(self) -> Hydration:
        """Return it in the language that the server shares."""
        return Hydration.model_validate(
            {
                "deadline_s": seconds(self.deadline),
                "on_missing": self.on_missing and Action(self.on_missing),
                "on_stale": self.on_stale and Action(self.on_stale),
                "on_store_error": self.on_store_error and Action(self.on_store_error),
                "max_age_s": {view: seconds(age) for view, age in self.max_age.items()},
            }
        )


class Model(_Record):
    """Which model file a variant serves."""

    uri: str = Field(
        min_length=1,
        max_length=4096,
        description="Where the ONNX file is; on one machine a path or file:// reference, relative to the manifest.",
    )
    digest: Digest = Field(description="sha256 of the file; the server verifies it before it is ready.")


class Variant(_Record):
    """One model that answers under the deployment's name."""

    name: Label = Field(max_length=30, description="Name of the variant, and of its arm.")
    role: Literal["Control", "Treatment", "Shadow"] = Field(
        description="Control takes what nobody else has; a Treatment its weight; a Shadow gets copies only."
    )
    model: Model = Field(description="Which model file it serves.")


class Unit(_Record):
    """What is assigned to arms: a user, a plane, a device."""

    header: HeaderName = Field(default=UNIT_HEADER, description="Request header (gRPC: metadata) that names the unit.")


class Override(_Record):
    """How testers choose a variant; left out of every analysis."""

    header: HeaderName = Field(default=OVERRIDE_HEADER, description="Request header that names the variant.")


class Retries(_Record):
    """What the gateway does when a server cannot be reached; a retry stays in its arm."""

    attempts: int = Field(default=2, ge=0, le=10, description="Further attempts after the first.")


class Routing(_Record):
    """How requests reach variants."""

    unit: Unit = Field(default=Unit(), description="Where the unit is found.")
    on_missing_unit: Literal["Control", "Random", "Reject"] = Field(
        default="Control", description="Requests without a unit: to control, drawn at random, or refused with 400."
    )
    override: Override = Field(default=Override(), description="How testers choose a variant.")
    timeout: Annotated[Duration, _at_most(600)] = Field(default="10s", description="Longest wait for a whole answer.")
    retries: Retries = Field(default=Retries(), description="Retries of connections that could not be made.")

    @model_validator(mode="after")
    def _headers_differ(self) -> Self:
        if self.unit.header == self.override.header:
            raise _broken(("override", "header"), f"is also unit.header ({self.unit.header}); choose another")
        for path, name in ((("unit", "header"), self.unit.header), (("override", "header"), self.override.header)):
            if name in {"x-variant", "x-fairlead-experiment", "host", "content-type", "te"}:
                raise _broken(path, f"{name} has another meaning; choose another header")
        return self


class Rollout(_Record):
    """How weight is moved."""

    strategy: Literal["Manual"] = Field(default="Manual", description="Manual: the weights stand here.")
    weights: dict[Label, Percent] = Field(
        default={}, max_length=32, description="Per cent of traffic per treatment; control takes the rest."
    )


class Experiment(_Record):
    """An experiment that is observed: its id names the assignment and the analysis."""

    id: Label = Field(max_length=40, description="Last part of the salt; a new id draws all units anew.")


class Serving(_Record):
    """Which release of the model server serves."""

    release: str | None = Field(
        default=None,
        pattern=r"^\d+\.\d+\.\d+([.-][a-z0-9.]+)?$",
        max_length=64,
        description="Exact release; set once when the deployment is made if left out, moved by its owner only.",
    )


class Spec(_Record):
    """What is wanted."""

    model_name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$")] | None = Field(
        default=None, max_length=63, description="What clients call on every variant; metadata.name if left out."
    )
    feature_store: FeatureStore = Field(description="Where the Feast feature store is described.")
    hydration: HydrationSpec = Field(default=HydrationSpec(), description="How features are looked up.")
    variants: tuple[Variant, ...] = Field(
        min_length=1, max_length=33, description="Exactly one Control, any number of Treatments and Shadows."
    )
    routing: Routing = Field(default=Routing(), description="How requests reach variants.")
    rollout: Rollout = Field(default=Rollout(), description="How weight is moved.")
    experiment: Experiment | None = Field(default=None, description="An observed experiment; none if left out.")
    serving: Serving = Field(default=Serving(), description="Which release of the model server serves.")
    paused: bool = Field(default=False, description="Keep what is in force; changes wait.")

    @property
    def control(self) -> Variant:
        """The one variant with role Control."""
        return next(variant for variant in self.variants if variant.role == "Control")

    @property
    def treatments(self) -> tuple[Variant, ...]:
        """Variants with role Treatment, in the order of their slots."""
        return tuple(variant for variant in self.variants if variant.role == "Treatment")

    @model_validator(mode="after")
    def _variants_are_sound(self) -> Self:
        for index, variant in enumerate(self.variants):
            if variant.name in {earlier.name for earlier in self.variants[:index]}:
                raise _broken(("variants", index, "name"), f"{variant.name} is listed twice; names are unique")
        controls = [index for index, variant in enumerate(self.variants) if variant.role == "Control"]
        if not controls:
            raise _broken(("variants",), "no variant has role Control; give it to the one that serves today")
        if len(controls) > 1:
            raise _broken(("variants", controls[1], "role"), "is a second Control; make it a Treatment or a Shadow")
        return self

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        for name, message in self._misfits():
            raise _broken(("rollout", "weights", name), message)
        return self

    def _misfits(self) -> Iterator[tuple[str, str]]:
        roles = {variant.name: variant.role for variant in self.variants}
        slot = BUCKETS // max(len(self.treatments), 1)
        for name, weight in self.rollout.weights.items():
            if name not in roles:
                yield name, f"is no variant (variants: {', '.join(roles)})"
            elif roles[name] == "Control":
                yield name, "is the Control, which takes the rest; remove it"
            elif roles[name] == "Shadow":
                yield name, "is a Shadow, which gets copies only; remove it or make it a Treatment"
            elif basis_points(weight) > slot:
                yield name, f"is over {slot / 100:g}, the slot of each of {len(self.treatments)} treatments"


class VariantFailure(_Record):
    """Why a variant last failed."""

    reason: str = Field(description="CamelCase reason.")
    message: str = Field(description="What happened and what to do.")


class VariantStatus(_Record):
    """How one variant is."""

    name: str = Field(description="Name of the variant.")
    role: str = Field(description="Role of the variant.")
    revision: str = Field(description="Revision wanted for it.")
    serving: str | None = Field(default=None, description="Revision that the route names for it.")
    ready: bool = Field(description="Whether the wanted revision is ready.")
    replicas: int = Field(description="Ready server processes or pods.")
    weight: Percent = Field(description="Per cent of traffic in force.")
    model_digest: str = Field(description="Digest of the model file.")
    contract_digest: str | None = Field(default=None, description="Digest of the contract, as the server reports it.")
    restarts: int = Field(default=0, description="Restarts since the process was first started.")
    last_failure: VariantFailure | None = Field(default=None, description="Why it last failed.")


class Url(_Record):
    """Where clients call."""

    rest: str = Field(description="Base of V1 and V2 REST.")
    grpc: str = Field(description="Target of V2 gRPC.")


class RolloutStatus(_Record):
    """Where the rollout stands."""

    stable: str | None = Field(default=None, description="Revision of control in the route.")
    step: int = Field(default=0, description="Number of the phase: weights that changed under one salt.")


class ExperimentStatus(_Record):
    """The experiment in force."""

    id: str = Field(description="Id of the experiment.")
    salt: str = Field(description="Salt of the assignment.")
    observing: bool = Field(description="Whether experiment headers are sent: every arm is in traffic.")


class Status(_Record):
    """What is."""

    observed_generation: int = Field(description="Generation of the spec that this describes.")
    url: Url = Field(description="Where clients call.")
    conditions: tuple[Condition, ...] = Field(description="One per aspect.")
    variants: tuple[VariantStatus, ...] = Field(description="One per variant, in the spec's order.")
    rollout: RolloutStatus = Field(description="Where the rollout stands.")
    experiment: ExperimentStatus | None = Field(default=None, description="The experiment in force.")
    serving_release: str = Field(description="Release of the model server in force.")
    simulated_time: str | None = Field(default=None, description="Time of a replay, ISO 8601; real time if absent.")


class ModelDeployment(_Record):
    """Models that answer under one name, how users are split over them, and what is observed."""

    api_version: Literal["serving.fairlead.dev/v1alpha1"] = Field(description="Group and version.")
    kind: Literal["ModelDeployment"] = Field(description="Kind.")
    metadata: Metadata = Field(description="Who the deployment is.")
    spec: Spec = Field(description="What is wanted.")
    status: Status | None = Field(default=None, description="What is; written by the platform.")

    @property
    def model_name(self) -> str:
        """What clients call."""
        return self.spec.model_name or self.metadata.name

    @property
    def salt(self) -> str:
        """Salt of the assignment: ``namespace/name/experiment-id``, or ``…/rollout`` outside an experiment."""
        last = self.spec.experiment.id if self.spec.experiment else "rollout"
        return f"{self.metadata.namespace}/{self.metadata.name}/{last}"

    @property
    def weights_bp(self) -> dict[str, int]:
        """Weight of every treatment in basis points, in the order of their slots."""
        weights = self.spec.rollout.weights
        return {variant.name: basis_points(weights.get(variant.name, 0)) for variant in self.spec.treatments}
