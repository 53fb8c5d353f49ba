"""What should be: revisions, how they are reached and how weight is to move, derived from a ModelDeployment alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from pydantic import TypeAdapter

from fairlead.experiment.design import Design
from fairlead.policy import Hydration
from fairlead_operator.api.v1alpha1 import (
    Experiment,
    FeatureStore,
    Model,
    ModelDeployment,
    Resources,
    Scaling,
    Unit,
    Variant,
    basis_points,
    seconds,
)
from fairlead_operator.api.v1alpha1.routing import ConnectionPool, Fault, OutlierDetection
from fairlead_operator.core.experiment import Plan, design_of, differing_field
from fairlead_operator.errors import EditRefused

_HASH_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Revision:
    """One server as it is rendered; never edited. Role, weights, replica bounds and labels are not in it."""

    name: str
    """``<deployment>-<variant>-<hash of everything below>``."""
    variant: str
    model_name: str
    model: Model
    resources: Resources
    release: str
    hydration: Hydration
    feature_store: FeatureStore

    @property
    def prediction(self) -> str:
        """Hash of what decides a prediction and an experiment freezes: model digest, server release, hydration."""
        return _hash([self.model.digest, self.release, self.hydration.model_dump(mode="json")])


@dataclass(frozen=True, slots=True)
class Reach:
    """How requests reach variants, apart from weights."""

    model_name: str
    unit: Unit
    on_missing_unit: str
    """Control, Random or Reject."""
    override_header: str
    timeout_s: float
    retry_attempts: int
    hosts: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    """Istio Gateways, ``namespace/name``."""
    outlier_detection: OutlierDetection | None = None
    connection_pool: ConnectionPool | None = None
    mirror_percent: float = 100
    fault: Fault | None = None

    @property
    def unit_header(self) -> str:
        """Request header that names the unit."""
        return self.unit.header


@dataclass(frozen=True, slots=True)
class Step:
    """One planned step."""

    weights_bp: Mapping[str, int]
    """Weight by arm: of treatments in the order of their slots; under Canary of the control's new revision."""
    hold_s: float | None
    """How long it lasts; None: until somebody decides."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """How weight is to move."""

    name: str
    """Manual, Canary or Experiment."""
    steps: tuple[Step, ...]
    """At least one; Manual has one that never ends."""
    promotes: bool
    """Whether success promotes by itself."""
    rolls_back: bool
    """Whether failure rolls back by itself."""
    progress_deadline_s: float
    keep_previous_s: float
    history_limit: int


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything that a ModelDeployment asks for."""

    namespace: str
    name: str
    generation: int
    revisions: Mapping[str, Revision]
    """Revision by variant, in the spec's order."""
    scaling: Mapping[str, Scaling]
    """Replica bounds by variant."""
    control: str
    treatments: tuple[str, ...]
    """In the order of their slots."""
    shadows: tuple[str, ...]
    salt: str
    experiment_id: str | None
    reach: Reach
    strategy: Strategy
    paused: bool = False
    request: str | None = None
    """What somebody decided, as the annotation says it: ``promote VARIANT RUN`` or ``abort RUN``."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """Role by variant."""
    design: Design | None = None
    """How the experiment is judged; None where nothing is compared."""
    ledger: str | None = None
    """Address of the ledger; None for the platform's own."""
    canary: Experiment | None = None
    """How a canary's revisions are to be compared; None if they are not. Salt, id and design are those of its run."""

    def salt_of(self, last: str) -> str:
        """Return the salt of this deployment that ends so."""
        return f"{self.namespace}/{self.name}/{last}"

    @property
    def is_judged(self) -> bool:
        """Whether anything is, or is to be, compared."""
        return self.design is not None or self.canary is not None

    @property
    def reached_by(self) -> str:
        """Hash of what else than weights says which requests reach whom; a comparison freezes it."""
        unit, hosts, gateways = self.reach.unit, sorted(self.reach.hosts), sorted(self.reach.gateways)
        return _hash([unit.model_dump(mode="json"), hosts, gateways])

    @property
    def arms(self) -> tuple[str, ...]:
        """Arms that take weight from control: treatments; under Canary the control's own new revision."""
        return (self.control,) if self.strategy.name == "Canary" else self.treatments

    @property
    def fingerprint(self) -> str:
        """Hash of all that is asked for, apart from its number, a pause and requests."""
        left_out = {"generation", "paused", "request"}
        left_out |= {"canary"} if self.canary is None else {"salt", "experiment_id", "design"}
        return _hash(_DESIRED.dump_python(self, mode="json", exclude=left_out))


_DESIRED = TypeAdapter(Desired)

PodIdentity = Callable[[Revision], object]
"""What a platform renders a revision's servers from, as JSON-like data: it goes into the revision's hash."""


def desired_from(deployment: ModelDeployment, release: str, identity: PodIdentity | None = None) -> Desired:
    """Return what ``deployment`` asks for.

    Args:
        deployment: The user's resource.
        release: Release of the model server, where the spec leaves it open.
        identity: What else of a platform's rendering makes a revision another one; nothing if left out.
    """
    spec = deployment.spec
    routing = spec.routing
    strategy = _strategy(deployment)
    revisions = {
        variant.name: _revision(deployment, variant, spec.serving.release or release, identity)
        for variant in spec.variants
    }
    treatments = tuple(variant.name for variant in spec.treatments)
    plan = Plan(
        salt=deployment.salt,
        control=spec.control.name,
        treatments=treatments,
        weights_bp=tuple(step.weights_bp for step in strategy.steps),
        predictions={name: revision.prediction for name, revision in revisions.items()},
    )
    return Desired(
        namespace=deployment.metadata.namespace,
        name=deployment.metadata.name,
        generation=deployment.metadata.generation,
        revisions=revisions,
        scaling={variant.name: variant.scaling for variant in spec.variants},
        control=spec.control.name,
        treatments=treatments,
        shadows=tuple(variant.name for variant in spec.variants if variant.role == "Shadow"),
        salt=deployment.salt,
        experiment_id=spec.experiment.id if spec.experiment else None,
        reach=Reach(
            model_name=deployment.model_name,
            unit=routing.units,
            on_missing_unit=routing.on_missing_unit,
            override_header=routing.override.header,
            timeout_s=seconds(routing.timeout),
            retry_attempts=routing.retries.attempts,
            hosts=routing.hosts,
            gateways=routing.gateways,
            outlier_detection=routing.outlier_detection,
            connection_pool=routing.connection_pool,
            mirror_percent=routing.mirror.percent,
            fault=routing.fault,
        ),
        strategy=strategy,
        paused=deployment.paused,
        request=deployment.request,
        roles={variant.name: variant.role for variant in spec.variants},
        design=design_of(spec.experiment, plan),
        ledger=spec.feedback.ledger.url,
        canary=spec.experiment if strategy.name == "Canary" else None,
    )


def refuse_breaking_edit(old: Desired, new: Desired) -> None:
    """Check that ``new`` keeps what a running experiment froze: unit, hosts, gateways, arms and predictions, steps.

    Raises:
        EditRefused: It does not; the message says what differs and how to go on.
    """
    if old.experiment_id is None or old.salt != new.salt:
        return
    for what, was, now in (
        ("spec.routing.unit", old.reach.unit, new.reach.unit),
        ("spec.routing.hosts", set(old.reach.hosts), set(new.reach.hosts)),
        ("spec.routing.gateways", set(old.reach.gateways), set(new.reach.gateways)),
        ("the control", old.control, new.control),
        ("the list of treatments", old.treatments, new.treatments),
        *(
            (f"the model, server release or hydration of {arm}", _prediction(old, arm), _prediction(new, arm))
            for arm in (old.control, *old.treatments)
        ),
        ("the weights of its steps", *_planned(old, new)),
    ):
        if was != now:
            raise EditRefused(
                f"experiment {old.experiment_id} has frozen {what}; "
                "choose a new id to start another experiment, or remove the block to end this one"
            )
    field = _differs(old.design, new.design)
    if field is not None:
        raise EditRefused(
            f"experiment {old.experiment_id} has frozen its design ({field}); "
            "choose a new id to start another experiment, or remove the block to end this one"
        )


def _differs(old: Design | None, new: Design | None) -> str | None:
    """Return in which field a design has become another one; None if it has not."""
    if old is None or new is None:
        return None if old is new else "objective and guardrails"
    return differing_field(old, new)


def _planned(old: Desired, new: Desired) -> tuple[list[Mapping[str, int]], list[Mapping[str, int]]]:
    """Return the weights of the steps of ``old``, before and now: steps may be added behind them."""
    if {old.strategy.name, new.strategy.name} != {"Experiment"}:
        return [], []
    before = [step.weights_bp for step in old.strategy.steps]
    return before, [step.weights_bp for step in new.strategy.steps[: len(before)]]


def _prediction(desired: Desired, arm: str) -> str | None:
    revision = desired.revisions.get(arm)
    return revision.prediction if revision else None


def _strategy(deployment: ModelDeployment) -> Strategy:
    rollout = deployment.spec.rollout
    arms = [variant.name for variant in deployment.spec.treatments]
    if rollout.strategy == "Canary":
        arms = [deployment.spec.control.name]
    planned = [(step.weights, step.hold) for step in rollout.steps] or [(rollout.weights, None)]
    return Strategy(
        name=rollout.strategy,
        steps=tuple(
            Step({arm: basis_points(weights.get(arm, 0)) for arm in arms}, None if hold is None else seconds(hold))
            for weights, hold in planned
        ),
        promotes=rollout.on_success == "Promote",
        rolls_back=rollout.on_failure == "Rollback",
        progress_deadline_s=seconds(rollout.progress_deadline),
        keep_previous_s=seconds(rollout.keep_previous),
        history_limit=deployment.spec.revision_history_limit,
    )


def _revision(deployment: ModelDeployment, variant: Variant, release: str, identity: PodIdentity | None) -> Revision:
    unnamed = Revision(
        name="",
        variant=variant.name,
        model_name=deployment.model_name,
        model=variant.model,
        resources=variant.resources,
        release=release,
        hydration=deployment.spec.hydration.policy(),
        feature_store=deployment.spec.feature_store,
    )
    content = [
        unnamed.variant,
        unnamed.model_name,
        unnamed.model.model_dump(mode="json"),
        unnamed.resources.model_dump(mode="json"),
        unnamed.release,
        unnamed.hydration.model_dump(mode="json"),
        unnamed.feature_store.model_dump(mode="json"),
        identity(unnamed) if identity else None,
    ]
    return replace(unnamed, name=f"{deployment.metadata.name}-{variant.name}-{_hash(content)}")


def _hash(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]
