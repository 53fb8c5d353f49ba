"""What should be: revisions and weights, derived from a ModelDeployment alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from fairlead import BUCKETS
from fairlead.policy import Hydration
from fairlead_operator.api.v1alpha1 import ModelDeployment, Variant, seconds
from fairlead_operator.errors import EditRefused

_HASH_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Revision:
    """One server as it is rendered; never edited. Role, weights and labels are not in it."""

    name: str
    """``<variant>-<hash of everything below>``."""
    variant: str
    model_name: str
    model_uri: str
    model_digest: str
    release: str
    hydration: Hydration
    feature_store: str

    @property
    def prediction(self) -> tuple[str, str, str]:
        """What decides a prediction, and what an experiment freezes: model digest, server release, hydration."""
        return self.model_digest, self.release, self.hydration.model_dump_json()


@dataclass(frozen=True, slots=True)
class Reach:
    """How requests reach variants, apart from weights."""

    model_name: str
    unit_header: str
    on_missing_unit: str
    """Control, Random or Reject."""
    override_header: str
    timeout_s: float
    retry_attempts: int


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything that a ModelDeployment asks for."""

    name: str
    generation: int
    revisions: Mapping[str, Revision]
    """Revision by variant, in the spec's order."""
    control: str
    weights_bp: Mapping[str, int]
    """Weight of each treatment, basis points, in the order of the slots."""
    shadows: tuple[str, ...]
    salt: str
    experiment_id: str | None
    reach: Reach

    def widths(self, weights_bp: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
        """Lay treatments of these weights and control over the buckets, by the law of ``fairlead.Layout``.

        Entries of width 0 are kept, and there are always two: a route may never list one destination alone.
        """
        slot = BUCKETS // max(len(weights_bp), 1)
        pieces = [
            piece for arm, weight in weights_bp.items() for piece in ((arm, weight), (self.control, slot - weight))
        ]
        rest = BUCKETS - sum(width for _, width in pieces)
        if rest or len(pieces) < 2:  # noqa: PLR2004 -- two entries
            pieces.append((self.control, rest))
        return tuple(pieces) if len(pieces) > 1 else (*pieces, (self.control, 0))


@dataclass(frozen=True, slots=True)
class Phase:
    """The weights of one experiment (or of none) while they stay the same."""

    salt: str
    number: int
    """From 0; counts changes of weight under one salt."""
    weights_bp: Mapping[str, int]


def next_phase(before: Phase | None, desired: Desired) -> Phase:
    """Return the phase that ``desired`` belongs to, after ``before``."""
    if before is None or before.salt != desired.salt:
        return Phase(desired.salt, 0, desired.weights_bp)
    changed = dict(before.weights_bp) != dict(desired.weights_bp)
    return Phase(desired.salt, before.number + changed, desired.weights_bp)


def desired_from(deployment: ModelDeployment, release: str) -> Desired:
    """Return what ``deployment`` asks for.

    Args:
        deployment: The user's resource.
        release: Release of the model server, where the spec leaves it open.
    """
    spec = deployment.spec
    routing = spec.routing
    return Desired(
        name=deployment.metadata.name,
        generation=deployment.metadata.generation,
        revisions={
            variant.name: _revision(deployment, variant, spec.serving.release or release) for variant in spec.variants
        },
        control=spec.control.name,
        weights_bp=deployment.weights_bp,
        shadows=tuple(variant.name for variant in spec.variants if variant.role == "Shadow"),
        salt=deployment.salt,
        experiment_id=spec.experiment.id if spec.experiment else None,
        reach=Reach(
            model_name=deployment.model_name,
            unit_header=routing.units.header,
            on_missing_unit=routing.on_missing_unit,
            override_header=routing.override.header,
            timeout_s=seconds(routing.timeout),
            retry_attempts=routing.retries.attempts,
        ),
    )


def refuse_breaking_edit(old: Desired, new: Desired) -> None:
    """Check that ``new`` keeps what a running experiment froze: unit, arms, and what decides their predictions.

    Raises:
        EditRefused: It does not; the message says what differs and how to go on.
    """
    if old.experiment_id is None or old.salt != new.salt:
        return
    for what, was, now in (
        ("spec.routing.unit", old.reach.unit_header, new.reach.unit_header),
        ("the control", old.control, new.control),
        ("the list of treatments", tuple(old.weights_bp), tuple(new.weights_bp)),
        *(
            (f"the model, server release or hydration of {arm}", _prediction(old, arm), _prediction(new, arm))
            for arm in (old.control, *old.weights_bp)
        ),
    ):
        if was != now:
            raise EditRefused(
                f"experiment {old.experiment_id} has frozen {what}; "
                "choose a new id to start another experiment, or remove the block to end this one"
            )


def _prediction(desired: Desired, arm: str) -> tuple[str, str, str] | None:
    revision = desired.revisions.get(arm)
    return revision.prediction if revision else None


def _revision(deployment: ModelDeployment, variant: Variant, release: str) -> Revision:
    store = deployment.spec.feature_store
    unnamed = Revision(
        name="",
        variant=variant.name,
        model_name=deployment.model_name,
        model_uri=variant.model.uri,
        model_digest=variant.model.digest,
        release=release,
        hydration=deployment.spec.hydration.policy(),
        feature_store=store.path or f"configmap:{store.config_map_ref.name if store.config_map_ref else ''}",
    )
    return replace(unnamed, name=f"{variant.name}-{_hash(unnamed)}")


def _hash(revision: Revision) -> str:
    content = {
        "variant": revision.variant,
        "model": [revision.model_name, revision.model_uri, revision.model_digest],
        "release": revision.release,
        "hydration": revision.hydration.model_dump(mode="json"),
        "feature_store": revision.feature_store,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]
