"""What is: servers, the route in force and what stands in the way, as a platform saw them at one moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from fairlead import Layout
from fairlead_operator.api.conditions import ConditionType, Reason
from fairlead_operator.core.desired import Reach


class Health(StrEnum):
    """How a revision's server is."""

    STARTING = "Starting"
    """Started, never ready since."""
    READY = "Ready"
    """Complete: answers for its model, with the expected digest and contract, on every replica wanted."""
    REDUCED = "Reduced"
    """Some replica answers, not every one that is wanted: scaling, an eviction, a drain. It keeps its weight."""
    UNREADY = "Unready"
    """Was ready and no replica has been for longer than the platform's patience: hung, overloaded or gone."""
    CRASHED = "Crashed"
    """Its process ended; the platform starts it again after a pause."""
    REFUSED = "Refused"
    """It refused its model, contract or digest; it is tried again now and then, as a file may be mended in place."""
    BLOCKED = "Blocked"
    """Its pods cannot be made or started: image, quota, configuration, admission."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a server last failed."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Server:
    """One revision's server, as observed."""

    revision: str
    variant: str
    health: Health
    generation: int
    """Of the spec that it was started for."""
    restarts: int = 0
    contract_digest: str | None = None
    failure: Failure | None = None
    prediction: str = ""
    """Hash of what decides its predictions; see ``Revision.prediction``."""
    replicas: int = 1
    """Replicas that answer."""
    min_replicas: int = 1
    """Fewest replicas that it is told to have."""
    max_replicas: int = 1
    """Most replicas that it is told to have."""
    created_s: float | None = None
    """When it was first started, Unix time; None if that is not known."""
    altered: bool = False
    """Whether somebody changed what it was started from; it is to be restored."""
    features: str | None = None
    """What its feature service has become since training, if that does not fit; None if it fits or is not known."""
    informed: bool = True
    """Whether every replica that answers knows what servers are told of feedback; else it counts nobody's exposure."""

    @property
    def ready(self) -> bool:
        """Whether it is complete."""
        return self.health is Health.READY

    @property
    def may_gain(self) -> bool:
        """Whether it may gain weight: complete, and its features are those that it was trained with."""
        return self.ready and self.features is None

    @property
    def answers(self) -> bool:
        """Whether it may keep the weight it has."""
        return self.health in {Health.READY, Health.REDUCED}


@dataclass(frozen=True, slots=True)
class Destination:
    """One entry of a split, in route order."""

    variant: str
    revision: str
    width_bp: int
    """Buckets, 0 to 10000."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a route says about an experiment, on every destination of its units' split."""

    salt: str
    phase: int
    layout: Layout

    def arm(self, destination: Destination) -> str:
        """Return the arm that a destination is, by name: its variant; its revision where both are of one."""
        named = {piece.arm for piece in self.layout.slices}
        return destination.revision if destination.revision in named else destination.variant


@dataclass(frozen=True, slots=True)
class Route:
    """A whole route: what the gateway does with every request of a deployment."""

    reach: Reach
    salt: str
    split: tuple[Destination, ...]
    """At least two entries; widths sum to 10000."""
    control: Destination
    """Where requests without a unit go when they go to control."""
    overrides: tuple[tuple[str, str | None], ...]
    """Per variant, the revision that testers reach; None while it has no ready server."""
    shadows: tuple[str, ...]
    """Revisions that get copies."""
    observation: Observation | None
    """None: no experiment header is sent to anyone."""

    @property
    def revisions(self) -> frozenset[str]:
        """Every revision that requests can reach through this route."""
        reached = {destination.revision for destination in self.split if destination.width_bp}
        return frozenset({*reached, self.control.revision, *self.shadows, *(r for _, r in self.overrides if r)})

    def weight_bp(self, variant: str) -> int:
        """Return the share of ``variant``, basis points."""
        return sum(destination.width_bp for destination in self.split if destination.variant == variant)

    def share_bp(self, revision: str) -> int:
        """Return the share of ``revision``, basis points."""
        return sum(destination.width_bp for destination in self.split if destination.revision == revision)

    def revision_of(self, variant: str) -> str | None:
        """Return the revision that this route names for ``variant``."""
        named = [d.revision for d in self.split if d.variant == variant and d.width_bp]
        return named[0] if named else dict(self.overrides).get(variant)

    @property
    def law(self) -> str:
        """What the split's law depends on: a gateway that obeys it for one such text does so at any weights."""
        unit = self.reach.unit
        cookie = f"/cookie:{unit.cookie.name}" if unit.cookie else ""
        hosts, gateways = (",".join(sorted(names)) for names in (self.reach.hosts, self.reach.gateways))
        return f"{self.salt}|{unit.source}{cookie}|{hosts}|{gateways}"

    @property
    def is_whole(self) -> bool:
        """Whether control's revision has every bucket."""
        return self.share_bp(self.control.revision) == sum(d.width_bp for d in self.split)


@dataclass(frozen=True, slots=True)
class Filter:
    """What makes the gateway split by the law rather than by chance."""

    law: str
    """``Route.law`` that it was written for; ``*`` where every route is split by the law as it is."""
    proven: bool
    """Whether known units were seen to land where the law says."""

    def obeys(self, law: str) -> bool:
        """Return whether the gateway is known to split by ``law``."""
        return self.proven and self.law in {law, "*"}


INHERENT = Filter("*", proven=True)
"""The filter of a gateway whose every route is split by the law."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What stands in the way and is not a server's failure."""

    condition: ConditionType
    reason: Reason
    message: str
    stops_servers: bool = False
    """Whether no server may be started or taken down meanwhile."""
    stops_route: bool = False
    """Whether the route may not be written meanwhile."""
    stops_growth: bool = False
    """Whether no treatment may gain weight meanwhile; what it has it keeps."""
    stops_split: bool = False
    """Whether no treatment may have weight meanwhile."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The world at one moment."""

    servers: Mapping[str, Server]
    """Servers by revision."""
    route: Route | None
    """The route that the gateway confirmed; None before the first."""
    route_altered: bool = False
    """Whether somebody changed it; it is to be restored."""
    filter: Filter | None = INHERENT
    """What makes the gateway split by the law; None while there is nothing."""
    mismatched: str | None = None
    """Why the gateway is known to break the law, from what servers counted; None if it is not."""
    problems: tuple[Problem, ...] = ()

    @property
    def may_grow(self) -> bool:
        """Whether nothing around the deployment keeps treatments from gaining weight."""
        return not any(problem.stops_growth for problem in self.problems)

    def server(self, revision: str | None) -> Server | None:
        """Return the server of ``revision``, if there is one."""
        return self.servers.get(revision) if revision else None

    def ready(self, revision: str | None) -> bool:
        """Return whether ``revision`` is complete."""
        server = self.server(revision)
        return server is not None and server.ready

    def may_gain(self, revision: str | None) -> bool:
        """Return whether ``revision`` may gain weight."""
        server = self.server(revision)
        return server is not None and server.may_gain

    def informed(self, revisions: Iterable[str | None]) -> bool:
        """Return whether all of these know what servers are told of feedback."""
        found = [self.server(revision) for revision in revisions]
        return all(server is not None and server.informed for server in found)

    def answers(self, revision: str | None) -> bool:
        """Return whether ``revision`` may keep weight."""
        server = self.server(revision)
        return server is not None and server.answers
