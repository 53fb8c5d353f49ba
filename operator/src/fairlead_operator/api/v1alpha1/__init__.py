"""ModelDeployment, group ``serving.fairlead.dev``, version ``v1alpha1``: the one source of the user's API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from fairlead import BUCKETS
from fairlead_operator.api.v1alpha1.experiment import (
    NOT_OF_CANARY,
    Covariate,
    Experiment,
    Feedback,
    Guardrail,
    Objective,
)
from fairlead_operator.api.v1alpha1.fields import Label, Name, Record, basis_points, broken, seconds
from fairlead_operator.api.v1alpha1.rollout import Rollout, Step
from fairlead_operator.api.v1alpha1.routing import Routing, Unit
from fairlead_operator.api.v1alpha1.serving import (
    FeatureStore,
    HydrationSpec,
    Model,
    Resources,
    Scaling,
    Serving,
    Storage,
    Variant,
)
from fairlead_operator.api.v1alpha1.status import (
    Decision,
    ExperimentStatus,
    HistoryEntry,
    MetricStatus,
    RolloutStatus,
    SampleRatio,
    Status,
    Url,
    VariantFailure,
    VariantStatus,
)

GROUP = "serving.fairlead.dev"
VERSION = "v1alpha1"
KIND = "ModelDeployment"
PLURAL = "modeldeployments"

PAUSED_ANNOTATION = f"{GROUP}/paused"
"""``true`` keeps everything as it is, like ``spec.paused``; set by ``fairlead pause``."""

REQUEST_ANNOTATION = f"{GROUP}/request"
"""What somebody decided: ``promote VARIANT RUN`` or ``abort RUN``; set by ``fairlead promote`` and ``abort``."""

NAMES_MAX = 36
"""Longest name of deployment and variant together: an InferenceService carries both and a hash (KServe: 46)."""

__all__ = [
    "GROUP",
    "KIND",
    "NAMES_MAX",
    "PAUSED_ANNOTATION",
    "PLURAL",
    "REQUEST_ANNOTATION",
    "VERSION",
    "Covariate",
    "Decision",
    "Experiment",
    "ExperimentStatus",
    "FeatureStore",
    "Feedback",
    "Guardrail",
    "HistoryEntry",
    "HydrationSpec",
    "Metadata",
    "MetricStatus",
    "Model",
    "ModelDeployment",
    "Name",
    "Objective",
    "Resources",
    "Rollout",
    "RolloutStatus",
    "Routing",
    "SampleRatio",
    "Scaling",
    "Serving",
    "Spec",
    "Status",
    "Step",
    "Storage",
    "Unit",
    "Url",
    "Variant",
    "VariantFailure",
    "VariantStatus",
    "basis_points",
    "seconds",
]


class Metadata(Record):
    """Who the deployment is."""

    name: Annotated[Label, Field(max_length=34)] = Field(description="Name; with the namespace, part of the salt.")
    namespace: Label = Field(default="default", description="Namespace; on one machine only part of the salt.")
    generation: int = Field(default=1, ge=1, description="Number of the spec, counted by the platform.")
    labels: dict[str, str] = Field(default={}, max_length=64, description="Free labels.")
    annotations: dict[str, str] = Field(default={}, max_length=64, description="Free annotations.")


class Spec(Record):
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
    experiment: Experiment | None = Field(
        default=None, description="An experiment; only observed under Manual, and guardrails alone under Canary."
    )
    feedback: Feedback = Field(
        default=Feedback(), description="Where it is told who was answered and what became of it."
    )
    serving: Serving = Field(default=Serving(), description="Which release of the model server serves.")
    paused: bool = Field(default=False, description="Keep what is in force; changes wait.")
    revision_history_limit: int = Field(default=5, ge=0, le=100, description="How many rollouts the history keeps.")

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
                raise broken(("variants", index, "name"), f"{variant.name} is listed twice; names are unique")
        controls = [index for index, variant in enumerate(self.variants) if variant.role == "Control"]
        if not controls:
            raise broken(("variants",), "no variant has role Control; give it to the one that serves today")
        if len(controls) > 1:
            raise broken(("variants", controls[1], "role"), "is a second Control; make it a Treatment or a Shadow")
        return self

    @model_validator(mode="after")
    def _strategy_fits(self) -> Self:
        rollout, manual = self.rollout, self.rollout.strategy == "Manual"
        if manual and rollout.steps:
            raise broken(("rollout", "steps"), "are for Canary and Experiment; Manual has weights")
        if not manual and rollout.weights:
            raise broken(("rollout", "weights"), f"are for Manual; {rollout.strategy} has steps")
        if not manual and not rollout.steps:
            raise broken(("rollout", "steps"), f"{rollout.strategy} needs at least one step; give one, or use Manual")
        for index, step in enumerate(rollout.steps[:-1]):
            if step.hold is None:
                message = "is required on every step but the last; say how long it lasts, such as 30m"
                raise broken(("rollout", "steps", index, "hold"), message)
        if self.experiment is not None and self.experiment.id is None and rollout.strategy != "Canary":
            raise broken(("experiment", "id"), "is required where Treatments are compared; give one, such as e1")
        if rollout.strategy == "Canary":
            self._canary_fits()
        if rollout.strategy == "Experiment":
            self._experiment_fits()
        return self

    def _canary_fits(self) -> None:
        if self.treatments:
            message = "Canary rolls out revisions of the Control; remove the Treatments, or use Manual or Experiment"
            raise broken(("rollout", "strategy"), message)
        if self.experiment is not None:
            self._guardrails_fit(self.experiment)

    def _guardrails_fit(self, experiment: Experiment) -> None:
        if not experiment.guardrails:
            message = "are what a Canary is judged by; give at least one, or remove experiment"
            raise broken(("experiment", "guardrails"), message)
        for field, why in NOT_OF_CANARY.items():
            if getattr(experiment, field) is not None:
                raise broken(("experiment", to_camel(field)), f"{why}; remove it")
        for index, step in enumerate(self.rollout.steps):
            for name, weight in step.weights.items():
                if not 0 < basis_points(weight) < BUCKETS:
                    message = "must be over 0 and under 100 where guardrails compare the new revision with the old one"
                    raise broken(("rollout", "steps", index, "weights", name), message)

    def _experiment_fits(self) -> None:
        if self.experiment is None:
            raise broken(("experiment",), "is required where rollout.strategy is Experiment; give it an id")
        if not self.treatments:
            raise broken(("variants",), "an Experiment needs a Treatment; add one, or use Manual or Canary")
        if self.routing.unit is None:
            message = "is required where rollout.strategy is Experiment; say which header, claim or cookie names a unit"
            raise broken(("routing", "unit"), message)

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        for name, message in self._misfits(self.rollout.weights):
            raise broken(("rollout", "weights", name), message)
        for index, step in enumerate(self.rollout.steps):
            for name, message in self._misfits(step.weights):
                raise broken(("rollout", "steps", index, "weights", name), message)
        return self

    def _misfits(self, weights: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        roles = {variant.name: variant.role for variant in self.variants}
        slot = BUCKETS // max(len(self.treatments), 1)
        canary = self.rollout.strategy == "Canary"
        for name, weight in weights.items():
            if name not in roles:
                yield name, f"is no variant (variants: {', '.join(roles)})"
            elif roles[name] == "Control" and not canary:
                yield name, "is the Control, which takes the rest; remove it"
            elif roles[name] == "Shadow":
                yield name, "is a Shadow, which gets copies only; remove it or make it a Treatment"
            elif basis_points(weight) > slot:
                yield name, f"is over {slot / 100:g}, the slot of each of {len(self.treatments)} treatments"


class ModelDeployment(Record):
    """Models that answer under one name, how users are split over them, and what is observed."""

    api_version: Literal["serving.fairlead.dev/v1alpha1"] = Field(description="Group and version.")
    kind: Literal["ModelDeployment"] = Field(description="Kind.")
    metadata: Metadata = Field(description="Who the deployment is.")
    spec: Spec = Field(description="What is wanted.")
    status: Status | None = Field(default=None, description="What is; written by the platform.")

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        for index, variant in enumerate(self.spec.variants):
            if len(self.metadata.name) + len(variant.name) > NAMES_MAX:
                message = f"is too long beside metadata.name; together at most {NAMES_MAX} letters"
                raise broken(("spec", "variants", index, "name"), message)
        return self

    @property
    def model_name(self) -> str:
        """What clients call."""
        return self.spec.model_name or self.metadata.name

    @property
    def salt(self) -> str:
        """Salt of the assignment: ``namespace/name/experiment-id``, or ``…/rollout`` outside an experiment.

        That of a canary with guardrails is its run's own; see ``core.canary``.
        """
        experiment = self.spec.experiment
        last = experiment.id if experiment is not None and experiment.id is not None else "rollout"
        return f"{self.metadata.namespace}/{self.metadata.name}/{last}"

    @property
    def paused(self) -> bool:
        """Whether changes wait: by the spec, or by ``fairlead pause``."""
        return self.spec.paused or self.metadata.annotations.get(PAUSED_ANNOTATION) == "true"

    @property
    def request(self) -> str | None:
        """What somebody decided: ``promote VARIANT RUN`` or ``abort RUN``; None if nobody has."""
        return self.metadata.annotations.get(REQUEST_ANNOTATION)

    @property
    def weights_bp(self) -> dict[str, int]:
        """Weight of every treatment under Manual in basis points, in the order of their slots."""
        weights = self.spec.rollout.weights
        return {variant.name: basis_points(weights.get(variant.name, 0)) for variant in self.spec.treatments}
