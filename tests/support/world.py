"""A small world for the pure core: servers that come and go, a gateway that does as told, and deployments to want."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fairlead import BUCKETS
from fairlead_operator.api.v1alpha1 import PAUSED_ANNOTATION, REQUEST_ANNOTATION, ModelDeployment
from fairlead_operator.core.canary import compared
from fairlead_operator.core.desired import Desired, desired_from
from fairlead_operator.core.evidence import Evidence, analysis_of, noted
from fairlead_operator.core.observed import INHERENT, Filter, Health, Observed, Problem, Route, Server
from fairlead_operator.core.plan import (
    Action,
    InstallFilter,
    ProveFilter,
    RemoveFilter,
    ScaleServer,
    StartServer,
    StopServer,
    WriteRoute,
    plan,
)
from fairlead_operator.core.record import Record, State
from fairlead_operator.core.rollout import NO_DATA, Analysis, advance


def deployment(
    weights: Mapping[str, float] = {"boosted": 50},
    *,
    digests: Mapping[str, str] = {},
    uris: Mapping[str, str] = {},
    roles: Mapping[str, str] = {"logistic": "Control", "boosted": "Treatment"},
    experiment: str | Mapping[str, Any] | None = "e1",
    generation: int = 1,
    scaling: Mapping[str, Any] = {},
    resources: Mapping[str, Any] = {},
    paused: bool = False,
    request: str | None = None,
    **spec: Any,
) -> ModelDeployment:
    """Return a deployment; a digest is one hexadecimal digit here, an experiment its id or the whole block."""
    annotations = {PAUSED_ANNOTATION: "true" if paused else "", REQUEST_ANNOTATION: request or ""}
    variants = [
        {
            "name": name,
            "role": role,
            "model": {"uri": uris.get(name, f"{name}.onnx"), "digest": f"sha256:{digests.get(name, 'a') * 64}"},
            **({"scaling": scaling[name]} if name in scaling else {}),
            **({"resources": {"requests": resources[name]}} if name in resources else {}),
        }
        for name, role in roles.items()
    ]
    return ModelDeployment.model_validate(
        {
            "apiVersion": "serving.fairlead.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {
                "name": "arrival-delay",
                "namespace": "flights",
                "generation": generation,
                "annotations": {name: text for name, text in annotations.items() if text},
            },
            "spec": {
                "featureStore": {"path": "store"},
                "variants": variants,
                "rollout": {"weights": dict(weights)},
                "experiment": {"id": experiment} if isinstance(experiment, str) else experiment,
                **spec,
            },
        },
        strict=False,
    )


def steps(*planned: tuple[Mapping[str, float], str | None]) -> list[dict[str, Any]]:
    """Return the steps of a spec: weights and how long they are held."""
    return [{"weights": dict(weights), **({"hold": hold} if hold else {})} for weights, hold in planned]


RAMP = steps(({"boosted": 10}, "10m"), ({"boosted": 50}, "10m"))
ONE_TREATMENT = {"logistic": "Control", "boosted": "Treatment"}


def experiment(
    planned: list[dict[str, Any]] = RAMP,
    *,
    rollout: Mapping[str, Any] = {},
    named: str | Mapping[str, Any] = "e1",
    **more: Any,
) -> Desired:
    """Return what an experiment by steps asks for; ``named`` is its id, or the whole block."""
    block = {"strategy": "Experiment", "steps": planned, **rollout}
    return desired_from(
        deployment(experiment=named, rollout=block, routing={"unit": {"header": "x-unit-id"}}, **more), "0.1.0"
    )


CANARY = steps(({"logistic": 10}, "10m"), ({"logistic": 50}, "10m"))


def canary(
    digest: str = "a", planned: list[dict[str, Any]] = CANARY, *, rollout: Mapping[str, Any] = {}, **named: Any
) -> Desired:
    """Return what a single model by steps asks for; ``digest`` is its model's."""
    block = {"strategy": "Canary", "steps": planned, **rollout}
    roles, digests = {"logistic": "Control"}, {"logistic": digest}
    whole = {"experiment": None, "roles": roles, "digests": digests, "rollout": block, **named}
    return desired_from(deployment(**whole), "0.1.0")


def desired(*arguments: Any, **named: Any) -> Desired:
    """Return what ``deployment(...)`` asks for."""
    return desired_from(deployment(*arguments, **named), "0.1.0")


class World:
    """Carries out plans, and checks at each step what must always hold."""

    def __init__(self, *, gateway_needs_filter: bool = False) -> None:
        self.servers: dict[str, Server] = {}
        self.route: Route | None = None
        self.filter: Filter | None = None if gateway_needs_filter else INHERENT
        self.record = Record("0.1.0")
        self.copy = self.record
        """The record's copy on the route."""
        self.now_s = 1_000_000.0
        self.analysis: Analysis = NO_DATA
        self.evidence: Evidence | None = None
        """What the analysis is made of; None if it is what ``analysis`` says."""
        self.registers = False
        """Whether, where the analysis is what ``analysis`` says, a ledger has every design."""
        self.mismatched: str | None = None
        self.problems: tuple[Problem, ...] = ()
        self.written: list[Route] = []
        self.done: list[Action] = []

    @property
    def observed(self) -> Observed:
        return Observed(
            dict(self.servers), self.route, filter=self.filter, mismatched=self.mismatched, problems=self.problems
        )

    def reconcile(self, wanted: Desired, *, stop_after: int | None = None) -> tuple[Action, ...]:
        """Advance, plan and apply; ``stop_after`` dies after so many actions."""
        known, analysis = self.record, self.analysis
        if self.evidence is not None:
            known = noted(wanted, known, self.evidence)
            analysis = analysis_of(wanted, known, self.evidence)
        elif self.registers and (design := compared(wanted, known).design) is not None:
            known = noted(wanted, known, Evidence(design.digest))
        self.record = advance(wanted, self.observed, known, analysis, self.now_s)
        actions = plan(wanted, self.observed, self.record)
        for action in actions[:stop_after]:
            self.apply(action)
        return actions

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds

    def apply(self, action: Action) -> None:
        self.done.append(action)
        match action:
            case StartServer(revision, generation, replicas):
                before = self.servers.get(revision.name)
                assert before is None or before.health is Health.REFUSED or before.altered
                self.servers[revision.name] = Server(
                    revision.name,
                    revision.variant,
                    Health.STARTING,
                    generation,
                    prediction=revision.prediction,
                    replicas=0,
                    min_replicas=replicas.fewest,
                    max_replicas=replicas.most,
                    created_s=self.now_s,
                )
            case ScaleServer(revision, replicas):
                before = self.servers[revision.name]
                self.servers[revision.name] = dataclasses.replace(
                    before,
                    min_replicas=replicas.fewest,
                    max_replicas=replicas.most,
                    health=Health.REDUCED
                    if before.health is Health.READY and before.replicas < replicas.fewest
                    else before.health,
                )
            case WriteRoute(route):
                self._check(route)
                self.route, self.copy = route, self.record
                self.written.append(route)
            case InstallFilter(route):
                assert self.route is not None
                assert len(self.route.split) > 1, "the hazard: one destination with the filter"
                self.filter = Filter(route.law, proven=False)
            case ProveFilter(route):
                assert self.filter is not None
                self.filter = Filter(route.law, proven=self.filter.law == route.law)
            case RemoveFilter():
                assert self.route is None or self.route.is_whole, "weight goes to control before the filter goes"
                self.filter = None
            case StopServer(name):
                assert self.route is None or name not in self.route.revisions, "weight is taken before anything else"
                del self.servers[name]

    def become(self, health: Health, *variants: str) -> None:
        """Give every server of these variants (all if none are named) this health."""
        for name, server in self.servers.items():
            if not variants or server.variant in variants:
                replicas = max(server.replicas, server.min_replicas) if health is Health.READY else server.replicas
                self.servers[name] = dataclasses.replace(server, health=health, replicas=replicas)

    def look(self, wanted: Desired, times: int = 3) -> None:
        """Reconcile a few times, as the events of what was written would have it."""
        for _ in range(times):
            self.reconcile(wanted)

    def lose_record(self) -> None:
        """Lose what was remembered, all but the copy on the route."""
        self.record = self.copy

    @property
    def state(self) -> State:
        return self.record.state

    def is_at(self, state: State) -> bool:
        return self.record.state is state

    def weight(self, variant: str) -> float:
        """Return the share of a variant, per cent."""
        assert self.route is not None
        return self.route.weight_bp(variant) / 100

    def share(self, wanted: Desired) -> float:
        """Return the share of the revision that is wanted for control, per cent."""
        assert self.route is not None
        return self.route.share_bp(wanted.revisions[wanted.control].name) / 100

    def settle(self, wanted: Desired) -> None:
        """Let everything start well, until nothing is left to do."""
        for _ in range(12):
            if not self.reconcile(wanted) and all(server.ready for server in self.servers.values()):
                return
            self.become(Health.READY)
        raise AssertionError(f"does not converge: {self.reconcile(wanted)}")

    def _check(self, route: Route) -> None:
        assert len(route.split) > 1, "one destination alone is never written"
        assert sum(destination.width_bp for destination in route.split) == BUCKETS
        if not route.is_whole and not (self.filter and self.filter.obeys(route.law)):
            before = self.route
            assert before is not None, "nothing obeys the law yet"
            assert before.law == route.law, "a split that nothing obeys"
            assert not before.is_whole, "a split that nothing obeys"
            assert route.observation is None, "an experiment is observed though the law may not hold"
        for destination in route.split:
            server = self.servers.get(destination.revision)
            if destination.width_bp and not (server and server.answers):
                assert destination.variant == route.control.variant, f"{destination} is not ready"
                assert self.route is not None
                assert destination.revision == self.route.control.revision, "control moved onto what is not ready"
        self._check_growth(route)

    def _check_growth(self, route: Route) -> None:
        """Check that a revision gains weight only if it is complete."""
        for revision in {destination.revision for destination in route.split}:
            had = self.route.share_bp(revision) if self.route else 0
            server = self.servers.get(revision)
            if route.share_bp(revision) > had and revision != route.control.revision:
                assert server is not None
                assert server.ready, f"{revision} gains weight and is {server.health}"
