"""What is: servers and the route in force, as a platform saw them at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from fairlead import Layout
from fairlead_operator.core.desired import Reach


class Health(StrEnum):
    """How a revision's server is."""

    STARTING = "Starting"
    """Started, never ready since."""
    READY = "Ready"
    """Answers for its model, with the expected digest."""
    UNREADY = "Unready"
    """Was ready and is no more: hung, overloaded or draining beyond the platform's patience."""
    CRASHED = "Crashed"
    """Its process ended; the platform starts it again after a pause."""
    REFUSED = "Refused"
    """It refused its model, contract or digest; it is tried again now and then, as a file may be mended in place."""


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

    @property
    def ready(self) -> bool:
        """Whether it may gain weight."""
        return self.health is Health.READY


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

    def revision_of(self, variant: str) -> str | None:
        """Return the revision that this route names for ``variant``."""
        named = [d.revision for d in self.split if d.variant == variant and d.width_bp]
        return named[0] if named else dict(self.overrides).get(variant)


@dataclass(frozen=True, slots=True)
class Observed:
    """The world at one moment."""

    servers: Mapping[str, Server]
    """Servers by revision."""
    route: Route | None
    """The route that the gateway confirmed; None before the first."""
