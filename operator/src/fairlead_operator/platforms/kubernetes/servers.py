"""A deployment's servers as a cluster shows them: InferenceServices, their Deployments and pods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fairlead_operator.core.observed import Failure, Health, Server
from fairlead_operator.platforms.kubernetes import pods as of_pods
from fairlead_operator.platforms.kubernetes.kinds import (
    DEPLOYMENT,
    INFERENCE_SERVICE,
    POD,
    REVISION_LABEL,
    VARIANT_LABEL,
)
from fairlead_operator.platforms.kubernetes.render.names import PREDICTION_ANNOTATION
from fairlead_operator.platforms.kubernetes.reports import Told
from fairlead_operator.platforms.kubernetes.store import Objects
from fairlead_operator.runtime.keys import ObjectKey

Resource = Mapping[str, Any]

_HPA_MIN = 1


@dataclass(frozen=True, slots=True)
class Answering:
    """How many pods of a revision answer, and whether all are as the revision wants them."""

    replicas: int
    complete: bool


class Absences:
    """Since when revisions that have answered have no pod that does; forgotten when the process ends."""

    def __init__(self) -> None:
        """Start with none."""
        self._answered: set[str] = set()
        self._since_s: dict[str, float] = {}

    def note(self, revision: str, *, answers: bool, has_answered: bool, now_s: float) -> float | None:
        """Take in a look at ``revision``; return for how long it has not answered, None if it never has.

        Args:
            revision: What was looked at.
            answers: Whether a pod of it answers now.
            has_answered: Whether one is known to have, though perhaps to an earlier process.
            now_s: Unix time, seconds.
        """
        if answers or has_answered:
            self._answered.add(revision)
        if answers:
            self._since_s.pop(revision, None)
            return 0.0
        if revision not in self._answered:
            return None
        return now_s - self._since_s.setdefault(revision, now_s)

    def due_s(self, now_s: float, grace_s: float) -> float | None:
        """Return the seconds until the next absence has lasted too long; None if there is none that will."""
        left = [since_s + grace_s - now_s for since_s in self._since_s.values() if since_s + grace_s > now_s]
        return min(left, default=None)

    def keep(self, revisions: frozenset[str]) -> None:
        """Forget all but ``revisions``."""
        self._answered &= revisions
        self._since_s = {name: since_s for name, since_s in self._since_s.items() if name in revisions}


@dataclass(frozen=True, slots=True)
class Look:
    """What servers are looked at with."""

    objects: Objects
    now_s: float
    grace_s: float
    """How long a revision may have no available pod before it loses its weight."""
    generation: int
    altered: Callable[[str, Resource], bool]
    """Whether the InferenceService of this name is not what was rendered for it."""
    told: Callable[[str], Told]
    """What the pods of a revision last told."""
    informed: Callable[[str], bool]
    """Whether all pods of a revision know what servers are told of feedback."""
    ours: Callable[[Resource], bool]
    """Whether an object with our labels is this deployment's."""
    in_route: frozenset[str]
    """Revisions that the route in force gives weight: they have answered, whatever this process remembers."""


def servers(owner: ObjectKey, look: Look, absences: Absences, others: Iterable[Resource] = ()) -> dict[str, Server]:
    """Return the servers of ``owner`` by revision; ``others`` are InferenceServices without its labels."""
    found = {}
    for service in (*look.objects.owned(INFERENCE_SERVICE, owner), *others):
        if service["metadata"].get("deletionTimestamp") or not look.ours(service):
            continue
        server = _server(service, look, absences, owner)
        found[server.revision] = server
    absences.keep(frozenset(found))
    return found


def answering(deployment: Resource | None, revision: str) -> Answering:
    """Return how many pods of ``revision`` its Deployment counts as available, and whether that is all of them."""
    if deployment is None:
        return Answering(0, complete=False)
    spec, status, metadata = deployment.get("spec", {}), deployment.get("status", {}), deployment["metadata"]
    template = spec.get("template", {}).get("metadata", {}).get("annotations", {})
    available, wanted = int(status.get("availableReplicas", 0)), int(spec.get("replicas", 0))
    complete = (
        template.get(REVISION_LABEL) == revision
        and status.get("observedGeneration", 0) >= metadata.get("generation", 1)
        and status.get("updatedReplicas", 0) == status.get("replicas", 0) == available == wanted >= 1
    )
    return Answering(available, complete)


def _server(service: Resource, look: Look, absences: Absences, owner: ObjectKey) -> Server:
    metadata = service["metadata"]
    name = metadata["name"]
    key = ObjectKey(metadata["namespace"], f"{name}-predictor")
    deployment = look.objects.get(DEPLOYMENT, key)
    own_pods = [pod for pod in look.objects.owned(POD, owner) if pod["metadata"]["labels"].get(REVISION_LABEL) == name]
    now = answering(deployment, name)
    absent_s = absences.note(name, answers=now.replicas > 0, has_answered=name in look.in_route, now_s=look.now_s)
    found = of_pods.trouble(own_pods, deployment, service)
    health, failure = _health(now, found, absent_s, look.grace_s)
    predictor = service.get("spec", {}).get("predictor", {})
    told = look.told(name)
    fewest = int(predictor.get("minReplicas", _HPA_MIN))
    return Server(
        revision=name,
        variant=(metadata.get("labels") or {}).get(VARIANT_LABEL, ""),
        health=health,
        generation=look.generation,
        restarts=of_pods.restarts(own_pods),
        contract_digest=told.contract_digest,
        failure=failure,
        prediction=metadata.get("annotations", {}).get(PREDICTION_ANNOTATION, ""),
        replicas=now.replicas,
        min_replicas=fewest,
        max_replicas=int(predictor.get("maxReplicas", fewest)),
        created_s=_unix_s(metadata.get("creationTimestamp")),
        altered=look.altered(name, service),
        features=told.features,
        informed=look.informed(name),
    )


def _health(
    now: Answering, found: of_pods.Trouble | None, absent_s: float | None, grace_s: float
) -> tuple[Health, Failure | None]:
    if now.complete:
        return Health.READY, None
    failure = found.failure if found else None
    if now.replicas or (absent_s is not None and absent_s < grace_s):
        return Health.REDUCED, failure
    if found is not None:
        return found.health, failure
    return (Health.STARTING if absent_s is None else Health.UNREADY), None


def _unix_s(stamp: str | None) -> float | None:
    return datetime.fromisoformat(stamp).timestamp() if stamp else None
