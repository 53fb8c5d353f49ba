"""The routes that the gateway splits by hash, and what it hashes on each: one list for both objects that need it.

A route named here always has two or more destinations in the VirtualService. With one, the EnvoyFilter would make
Envoy refuse every route of the gateway.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fairlead.route import cookie_pattern
from fairlead_operator.core.observed import Route
from fairlead_operator.platforms.kubernetes.render.names import Manifest, Place

REQUEST_ID_HEADER: Final = "x-request-id"
"""Made by the gateway for each request; a client's own is replaced."""


class Protocol(StrEnum):
    """What clients speak; part of routes' names."""

    GRPC = "grpc"
    HTTP = "http"


class Split(StrEnum):
    """Routes that are split by hash; part of their names."""

    UNIT = "unit"
    """Requests with a unit in the header."""
    COOKIE = "cookie"
    """Browsers with a unit in the cookie."""
    NEW = "new"
    """Browsers that get their cookie with this answer."""
    PROBE = "probe"
    """Our own requests; see ``probe``."""


@dataclass(frozen=True, slots=True)
class HashedRoute:
    """One route that is split by hash."""

    name: str
    header: str
    """Request header that is hashed, after ``pattern`` in it was replaced by ``substitution``."""
    pattern: str
    substitution: str

    @property
    def policy(self) -> Manifest:
        """Envoy's hash policy: the law's ``salt:unit``."""
        rewrite = {"pattern": {"regex": self.pattern}, "substitution": self.substitution}
        return {"header": {"header_name": self.header, "regex_rewrite": rewrite}}


def route_name(place: Place, protocol: Protocol, what: str) -> str:
    """Return the name of a route; filters match it exactly, so it names the deployment too."""
    return f"{place.namespace}.{place.name}.{protocol}.{what}"


def hashed_routes(place: Place, route: Route) -> Iterator[HashedRoute]:
    """Yield every route of ``route`` that is split by hash."""
    header, cookie = route.reach.unit.header, route.reach.unit.cookie
    yield _prefixed(place, route, Protocol.HTTP, Split.PROBE, header)
    yield _prefixed(place, route, Protocol.GRPC, Split.UNIT, header)
    yield _prefixed(place, route, Protocol.HTTP, Split.UNIT, header)
    if cookie:
        yield HashedRoute(
            route_name(place, Protocol.HTTP, Split.COOKIE),
            "cookie",
            f"^{cookie_pattern(cookie.name)}$",
            rf"{route.salt}:\1",
        )
        yield _prefixed(place, route, Protocol.HTTP, Split.NEW, REQUEST_ID_HEADER)


def _prefixed(place: Place, route: Route, protocol: Protocol, split: Split, header: str) -> HashedRoute:
    return HashedRoute(route_name(place, protocol, split), header, "^", f"{route.salt}:")
