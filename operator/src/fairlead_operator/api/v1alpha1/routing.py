"""How requests reach variants."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from fairlead.route import OVERRIDE_HEADER, UNIT_HEADER
from fairlead_operator.api.v1alpha1.fields import DAY_S, Duration, HeaderName, Percent, Record, at_most, broken

TAKEN_HEADERS = ("x-variant", "x-fairlead-experiment", "x-prediction-id", "host", "content-type", "te", "cookie")
"""Headers that have another meaning already, so that they cannot name units or variants."""

Host = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]
GatewayName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?/[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=317),
]


class Cookie(Record):
    """A cookie that the gateway makes for browsers that bring no unit."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_-]+$", min_length=1, max_length=64, description="Name of the cookie, such as ab-unit."
    )
    ttl: Annotated[Duration, at_most(400 * DAY_S)] = Field(
        default="365d", description="How long a browser keeps it; longer than the experiment."
    )


class Unit(Record):
    """What is assigned to arms: a user, a plane, a device."""

    header: HeaderName = Field(default=UNIT_HEADER, description="Request header (gRPC: metadata) that names the unit.")
    jwt_claim: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_.-]+$",
        min_length=1,
        max_length=128,
        description="Claim of a verified token that the gateway copies into the header; nobody can choose an arm.",
    )
    cookie: Cookie | None = Field(default=None, description="Browsers: units in a cookie; the header still wins.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.jwt_claim is not None and self.cookie is not None:
            raise broken(("cookie",), "and jwtClaim exclude each other; remove one")
        return self

    @property
    def source(self) -> str:
        """Where units come from, as the experiment header names it; a token's claim comes in the header, too."""
        return f"header:{self.header}"


class Override(Record):
    """How testers choose a variant; left out of every analysis."""

    header: HeaderName = Field(default=OVERRIDE_HEADER, description="Request header that names the variant.")


class Retries(Record):
    """What the gateway does when a server cannot be reached; a retry stays in its arm."""

    attempts: int = Field(default=2, ge=0, le=10, description="Further attempts after the first.")


class OutlierDetection(Record):
    """When the gateway leaves a replica out for a while; its arm keeps its share."""

    consecutive_5xx: int = Field(
        default=5, alias="consecutive5xx", ge=1, le=1000, description="Failures in a row before a replica is left out."
    )
    interval: Annotated[Duration, at_most(3600)] = Field(default="10s", description="How often replicas are judged.")
    base_ejection_time: Annotated[Duration, at_most(3600)] = Field(
        default="30s", description="How long a replica is left out the first time."
    )
    max_ejection_percent: int = Field(default=50, ge=0, le=100, description="Most replicas left out, per cent.")


class ConnectionPool(Record):
    """How much the gateway sends to one variant at a time."""

    max_connections: int = Field(default=1024, ge=1, le=1_000_000, description="Most connections to all replicas.")
    max_pending_requests: int = Field(default=1024, ge=1, le=1_000_000, description="Most requests that wait.")
    max_requests: int = Field(default=1024, ge=1, le=1_000_000, description="Most requests at a time.")


class Delay(Record):
    """Requests that wait before they are sent on."""

    percent: Percent = Field(description="Share of requests, per cent.")
    duration: Annotated[Duration, at_most(60)] = Field(description="How long they wait.")


class Abort(Record):
    """Requests that are refused by the gateway."""

    percent: Percent = Field(description="Share of requests, per cent.")
    status: int = Field(ge=400, le=599, description="HTTP status they get.")


class Fault(Record):
    """Faults on purpose; only in namespaces labelled serving.fairlead.dev/fault-injection=allowed."""

    delay: Delay | None = Field(default=None, description="Requests that wait.")
    abort: Abort | None = Field(default=None, description="Requests that are refused.")


class Mirror(Record):
    """How much traffic Shadows get copies of."""

    percent: Percent = Field(default=100, description="Share of requests that are copied to each Shadow, per cent.")


class Routing(Record):
    """How requests reach variants."""

    hosts: tuple[Host, ...] = Field(
        default=(), max_length=16, description="Cluster: host names; NAME.NAMESPACE and the operator's domain if none."
    )
    gateways: tuple[GatewayName, ...] = Field(
        default=(), max_length=8, description="Cluster: Istio Gateways, namespace/name; the operator's default if none."
    )
    unit: Unit | None = Field(default=None, description="Where the unit is found; the header x-unit-id if left out.")
    on_missing_unit: Literal["Control", "Random", "Reject"] = Field(
        default="Control", description="Requests without a unit: to control, drawn at random, or refused with 400."
    )
    override: Override = Field(default=Override(), description="How testers choose a variant.")
    timeout: Annotated[Duration, at_most(600)] = Field(default="10s", description="Longest wait for a whole answer.")
    retries: Retries = Field(default=Retries(), description="Retries of connections that could not be made.")
    outlier_detection: OutlierDetection | None = Field(default=None, description="Cluster: when a replica is left out.")
    connection_pool: ConnectionPool | None = Field(default=None, description="Cluster: bounds of the gateway.")
    mirror: Mirror = Field(default=Mirror(), description="How much traffic Shadows get copies of.")
    fault: Fault | None = Field(default=None, description="Cluster: faults on purpose, where the namespace allows it.")

    @property
    def units(self) -> Unit:
        """Where the unit is found."""
        return self.unit or Unit()

    @model_validator(mode="after")
    def _headers_differ(self) -> Self:
        unit, override = self.units.header, self.override.header
        if unit == override:
            raise broken(("override", "header"), f"is also unit.header ({unit}); choose another")
        for path, name in ((("unit", "header"), unit), (("override", "header"), override)):
            if name in TAKEN_HEADERS:
                raise broken(path, f"{name} has another meaning; choose another header")
        return self
