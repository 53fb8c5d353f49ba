"""A deployment whose autoscalers are given load: what was seen of replicas, weights and requests, in their order.

Needs a cluster with a metrics server (``tools/cluster up --packaged``), and an operator that serves the stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from fairlead_operator.platforms.kubernetes.kinds import (
    DEPLOYMENT,
    HORIZONTAL_POD_AUTOSCALER,
    INFERENCE_SERVICE,
    VARIANT_LABEL,
    VIRTUAL_SERVICE,
    Kind,
)
from fairlead_operator.platforms.kubernetes.render import read_route
from support.cluster_api import Change, Resource, Watch
from support.cluster_deployed import Place
from support.cluster_deployments import MODEL_NAME, Deployed, Stage
from support.gateway_load import Load

NAME = "scaled"
CONTROL, TREATMENT = "logistic", "boosted"
EXPERIMENT = "scaled"
MOST = 3
"""Replicas that the control may have."""
BEFORE, SHARE = 20, 60
"""Per cent of the treatment, by hand and in the experiment."""
NEEDED = 2
"""Replicas that its share needs in the experiment, where three serve everything."""
_UNITS = [f"unit-{number}" for number in range(500)]
_SCALED_S = 180.0
_KINDS = (VIRTUAL_SERVICE, DEPLOYMENT, INFERENCE_SERVICE)


@dataclass(frozen=True, slots=True)
class Sight:
    """What there was at one moment."""

    weight: int
    """Per cent of the treatment in the route."""
    available: Mapping[str, int]
    """Pods that answer, by variant."""
    fewest: Mapping[str, int]
    """``minReplicas`` of the InferenceServices, by variant."""


class Sights:
    """Watches route, pods and bounds of one deployment while it is entered."""

    def __init__(self, deployed: Deployed) -> None:
        self._name = deployed.name
        kubeconfig, namespace = deployed.stage.cluster.kubeconfig, deployed.namespace
        self._watches = {kind: Watch(kubeconfig, kind, namespace) for kind in _KINDS}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch until it is left."""
        with ExitStack() as stack:
            for watch in self._watches.values():
                stack.enter_context(watch)
            yield

    def all(self) -> list[Sight]:
        """Return what there was after each write, in the order of the writes."""
        assert not [problem for watch in self._watches.values() for problem in watch.problems], "changes may be missing"
        changes = [(change.version, kind, change.resource) for kind, change in self._changes()]
        return list(self._replayed(sorted(changes, key=itemgetter(0))))

    def route_writes(self) -> int:
        """Return how often the route was written."""
        return len(self._watches[VIRTUAL_SERVICE].changes)

    def _changes(self) -> Iterator[tuple[Kind, Change]]:
        for kind, watch in self._watches.items():
            yield from ((kind, change) for change in list(watch.changes))

    def _replayed(self, changes: Iterable[tuple[int, Kind, Resource]]) -> Iterator[Sight]:
        weight, available, fewest = 0, {CONTROL: 0, TREATMENT: 0}, {CONTROL: 0, TREATMENT: 0}
        for _, kind, found in changes:
            variant = (found["metadata"].get("labels") or {}).get(VARIANT_LABEL, "")
            if kind == VIRTUAL_SERVICE and found["metadata"]["name"] == self._name:
                weight = _weight(found)
            elif kind == DEPLOYMENT and variant:
                available = {**available, variant: found.get("status", {}).get("availableReplicas", 0)}
            elif kind == INFERENCE_SERVICE and variant:
                fewest = {**fewest, variant: found["spec"]["predictor"]["minReplicas"]}
            yield Sight(weight, available, fewest)


@dataclass(frozen=True, slots=True)
class Scaled:
    """What was seen of a deployment under load."""

    autoscaler: Resource
    """The control's, once it had scaled."""
    writes_while_scaling: int
    """How often the route was written meanwhile."""
    sights: tuple[Sight, ...]
    """Everything, from the first load to the experiment's weights."""
    requests: int
    problems: tuple[str, ...]
    """Of requests that were lost."""


def manifest(stage: Stage, rollout: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    """Return a deployment whose control is scaled by little load, and whose treatment is not."""
    control = stage.variant(CONTROL, scaling={"minReplicas": 1, "maxReplicas": MOST, "target": {"cpuPercent": 50}})
    treatment = stage.variant(TREATMENT, "Treatment", scaling={"minReplicas": 1, "maxReplicas": MOST})
    treatment["resources"] = {**treatment["resources"], "requests": {"cpu": "400m", "memory": "128Mi"}}
    return stage.manifest(NAME, [control, treatment], rollout=rollout, **spec)


def scale(stage: Stage) -> Scaled:
    """Deploy, have load scale the control up, start an experiment then, and return what was seen; see ``scaled``."""

    def apply(rollout: Mapping[str, Any], **spec: Any) -> None:
        stage.apply(manifest(stage, rollout, **spec))

    deployed = Deployed(stage, NAME)
    load = Load(deployed.address, deployed.host, MODEL_NAME, _UNITS, connections=2, pause_s=0.02)
    return scaled(deployed, apply, load)


def scaled(deployed: Deployed, apply: Callable[..., object], load: Load) -> Scaled:
    """Have load scale the control of a deployment up, start an experiment then, and return what was seen.

    The experiment is left at its only step.

    Args:
        deployed: What is scaled; it need not be there yet.
        apply: Gives it a ``rollout`` and more fields of its spec, with the bounds of ``manifest``.
        load: What it is asked with; not begun yet.

    Raises:
        TimeoutError: Something did not happen; the message tells the story.
    """
    apply({"strategy": "Manual", "weights": {TREATMENT: BEFORE}})
    deployed.wait_weights(**{TREATMENT: BEFORE})
    sights = Sights(deployed)
    with sights.watching(), load:
        before = sights.route_writes()
        deployed.wait(lambda: sights.all()[-1].available[CONTROL] == MOST, _SCALED_S)
        written = sights.route_writes() - before
        autoscaler = _autoscaler(deployed)
        apply({"strategy": "Experiment", "steps": [{"weights": {TREATMENT: SHARE}}]}, experiment={"id": EXPERIMENT})
        deployed.wait(lambda: sights.all()[-1].weight == SHARE)
    problems = tuple(f"{sample.protocol} {sample.problem}" for sample in load.lost)
    return Scaled(autoscaler, written, tuple(sights.all()), len(load.samples), problems)


def fewest(stage: Place, variant: str) -> int:
    """Return the ``minReplicas`` of a variant now."""
    label = {VARIANT_LABEL.replace("/", "__"): variant}
    (found,) = stage.api.items(INFERENCE_SERVICE, stage.namespace, **label)
    bound: int = found["spec"]["predictor"]["minReplicas"]
    return bound


def _weight(virtual_service: Resource) -> int:
    route = read_route(virtual_service)
    return route.weight_bp(TREATMENT) // 100 if route else 0


def _autoscaler(deployed: Deployed) -> Resource:
    found = deployed.api.items(HORIZONTAL_POD_AUTOSCALER, deployed.namespace)
    return next(one for one in found if f"-{CONTROL}-" in one["metadata"]["name"])
