"""What a deployment says about itself, derived from what should be and what is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fairlead_operator.api.conditions import Condition, ConditionType, Reason, stamped
from fairlead_operator.api.v1alpha1 import (
    ExperimentStatus,
    ModelDeployment,
    RolloutStatus,
    Status,
    Url,
    VariantFailure,
    VariantStatus,
)
from fairlead_operator.core.desired import Desired, Phase
from fairlead_operator.core.observed import Health, Observed, Server

_REASONS = {
    Health.STARTING: Reason.STARTING,
    Health.UNREADY: Reason.NOT_READY,
    Health.CRASHED: Reason.CRASHED,
    Health.REFUSED: Reason.MODEL_REFUSED,
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the status tells that is neither desired nor observed by the core."""

    url: Url
    release: str
    now: str
    """ISO 8601 UTC."""
    simulated_time: str | None = None
    gateway_problem: str | None = None
    """Why the last route did not get through; None if it did."""
    edit_problem: str | None = None
    """Why the manifest as it stands is not in force; None if it is."""
    paused: bool = False


def status_of(
    deployment: ModelDeployment, desired: Desired, observed: Observed, phase: Phase, around: Surroundings
) -> Status:
    """Return the status of ``deployment``; its former status gives conditions their transition times."""
    before = deployment.status.conditions if deployment.status else ()
    conditions = tuple(_conditions(desired, observed, around))
    route = observed.route
    return Status(
        observed_generation=desired.generation,
        url=around.url,
        conditions=stamped((_ready(conditions, desired), *conditions), before, around.now),
        variants=tuple(_variant(deployment, desired, observed, name) for name in desired.revisions),
        rollout=RolloutStatus(stable=route.control.revision if route else None, step=phase.number),
        experiment=ExperimentStatus(
            id=desired.experiment_id, salt=desired.salt, observing=bool(route and route.observation)
        )
        if desired.experiment_id
        else None,
        serving_release=around.release,
        simulated_time=around.simulated_time,
    )


def _variant(deployment: ModelDeployment, desired: Desired, observed: Observed, name: str) -> VariantStatus:
    revision = desired.revisions[name]
    server = observed.servers.get(revision.name)
    role = next(variant.role for variant in deployment.spec.variants if variant.name == name)
    ready = server is not None and server.ready
    return VariantStatus(
        name=name,
        role=role,
        revision=revision.name,
        serving=observed.route.revision_of(name) if observed.route else None,
        ready=ready,
        replicas=int(ready),
        weight=observed.route.weight_bp(name) / 100 if observed.route else 0,
        model_digest=revision.model_digest,
        contract_digest=server.contract_digest if server else None,
        restarts=server.restarts if server else 0,
        last_failure=VariantFailure(reason=server.failure.reason, message=server.failure.message)
        if server and server.failure
        else None,
    )


def _conditions(desired: Desired, observed: Observed, around: Surroundings) -> Iterator[Condition]:
    def condition(kind: ConditionType, holds: bool, reason: Reason, message: str) -> Condition:
        status = "True" if holds else "False"
        return Condition(
            type=kind, status=status, reason=reason, message=message, observed_generation=desired.generation
        )

    yield condition(ConditionType.SERVABLE, *_servable(observed))
    yield condition(ConditionType.VARIANTS_READY, *_variants_ready(desired, observed))
    yield condition(ConditionType.ROUTING_READY, *_routing_ready(desired, observed, around))
    yield condition(ConditionType.PROGRESSING, *_progressing(desired, observed, around))


_Verdict = tuple[bool, Reason, str]


def _servable(observed: Observed) -> _Verdict:
    route = observed.route
    if route is None:
        return False, Reason.STARTING, "no variant was ready yet"
    ready = [d.variant for d in route.split if d.width_bp and _is_ready(observed, d.revision)]
    if ready:
        return True, Reason.AS_SPECIFIED, f"answering: {', '.join(dict.fromkeys(ready))}"
    return False, Reason.NOT_READY, "no variant in the route has a ready server; see logs/"


def _variants_ready(desired: Desired, observed: Observed) -> _Verdict:
    for name, revision in desired.revisions.items():
        server = observed.servers.get(revision.name)
        if server is None or not server.ready:
            return False, _reason(server), f"{name}: {_explanation(revision.name, server)}"
    return True, Reason.AS_SPECIFIED, f"{len(desired.revisions)} of {len(desired.revisions)} variants are ready"


def _routing_ready(desired: Desired, observed: Observed, around: Surroundings) -> _Verdict:
    route = observed.route
    if around.gateway_problem is not None:
        return False, Reason.GATEWAY_REFUSED, around.gateway_problem
    if route is None:
        return False, Reason.STARTING, "no route yet: control is not ready"
    if not _is_ready(observed, route.control.revision):
        message = f"{route.control.variant} has no ready server and keeps its share: nothing is better than control"
        return False, Reason.DEGRADED, message
    for arm, weight in desired.weights_bp.items():
        if route.weight_bp(arm) != weight:
            message = f"{arm} has {route.weight_bp(arm) / 100:g} of {weight / 100:g} per cent until it is ready"
            return False, Reason.WEIGHT_WITHDRAWN, message
    shares = ", ".join(f"{name} {route.weight_bp(name) / 100:g}" for name in (desired.control, *desired.weights_bp))
    return True, Reason.AS_SPECIFIED, f"weights in per cent: {shares}"


def _progressing(desired: Desired, observed: Observed, around: Surroundings) -> _Verdict:
    if around.edit_problem is not None:
        return False, Reason.INVALID_SPEC, f"the last good manifest is in force: {around.edit_problem}"
    if around.paused:
        return False, Reason.PAUSED, "spec.paused is true; changes wait"
    waiting = [r.variant for r in desired.revisions.values() if not _is_ready(observed, r.name)]
    if waiting:
        return True, Reason.STARTING, f"waiting for {', '.join(waiting)}"
    return False, Reason.AS_SPECIFIED, "nothing is left to do"


def _ready(conditions: Iterable[Condition], desired: Desired) -> Condition:
    """Return the sum of the others: the first that stands in the way gives the reason."""
    for other in conditions:
        if other.type is ConditionType.PROGRESSING:
            blocks = other.reason is Reason.INVALID_SPEC
        else:
            blocks = other.status != "True"
        if blocks:
            return other.model_copy(update={"type": ConditionType.READY, "status": "False"})
    return Condition(
        type=ConditionType.READY,
        status="True",
        reason=Reason.AS_SPECIFIED,
        message="all that was asked for is so",
        observed_generation=desired.generation,
    )


def _is_ready(observed: Observed, revision: str) -> bool:
    server = observed.servers.get(revision)
    return server is not None and server.ready


def _reason(server: Server | None) -> Reason:
    return _REASONS[server.health] if server else Reason.STARTING


def _explanation(revision: str, server: Server | None) -> str:
    if server is not None and server.failure is not None:
        return server.failure.message
    return f"{revision} is starting"
