"""Whether a gateway splits by the assignment law: known units are sent through it, to a route that touches no user."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import aiohttp

from fairlead import assign
from fairlead.route import RouteKey
from fairlead_operator.api.conditions import ConditionType, Reason
from fairlead_operator.core.observed import Problem, Route
from fairlead_operator.errors import GatewayError
from fairlead_operator.platforms.kubernetes.gateways import Entry
from fairlead_operator.platforms.kubernetes.render.probe import (
    PROBE_ARM_HEADER,
    PROBE_HEADER,
    PROBE_LAYOUT,
    PROBE_PATH,
    probe_value,
)
from fairlead_operator.platforms.kubernetes.writer import Obstacle

UNITS = tuple(f"probe-{number}" for number in range(32))
"""A gateway that draws by chance puts all of them where the law says once in 2 ** 32 times."""

_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Prover:
    """Sends probes."""

    session: aiohttp.ClientSession
    timeout_s: float
    """Of one request."""
    patience_s: float
    """How long a gateway may take to follow a write."""
    now: Callable[[], float]
    """A clock that never goes back, seconds."""

    async def prove(self, route: Route, key: RouteKey, entries: Iterable[Entry]) -> None:
        """Return once every entry splits known units by the law of ``route``, for each host that it takes.

        Raises:
            GatewayError: One does not, within the patience.
            Obstacle: None takes one of the hosts.
        """
        every = tuple(entries)
        if not every:
            raise GatewayError("no Service is in front of the gateway's pods on a port of the Gateway; make one")
        for host in route.reach.hosts:
            if not any(entry.takes(host) for entry in every):
                raise Obstacle(_homeless(route, host))
        end_s = self.now() + self.patience_s
        for entry in every:
            hosts = [host for host in route.reach.hosts if entry.takes(host)]
            problem = await self._problem(route, key, entry, hosts)
            while problem is not None and self.now() < end_s:
                await asyncio.sleep(_PAUSE_S)
                problem = await self._problem(route, key, entry, hosts)
            if problem is not None:
                raise GatewayError(f"{entry.internal} does not split by the assignment law: {problem}")

    async def _problem(self, route: Route, key: RouteKey, entry: Entry, hosts: Iterable[str]) -> str | None:
        for host in hosts:
            for unit in UNITS:
                try:
                    landed = await self._ask(route, key, entry, host, unit)
                except (OSError, aiohttp.ClientError, TimeoutError) as error:
                    return f"no answer for host {host} ({type(error).__name__})"
                expected = assign(unit, route.salt, PROBE_LAYOUT)
                if landed != expected:
                    return f"unit {unit} of host {host} landed in {landed or 'no arm'}, not in {expected}"
        return None

    async def _ask(self, route: Route, key: RouteKey, entry: Entry, host: str, unit: str) -> str | None:
        headers = {"host": host, PROBE_HEADER: probe_value(route, key), route.reach.unit_header: unit}
        name = host if entry.tls else None
        # Whose certificate it is proves nothing here: the probe's value is in no answer.
        # Where a redirect leads does not, either: it is another entry, or somebody else's.
        asked = self.session.get(
            entry.url + PROBE_PATH, headers=headers, ssl=not entry.tls, server_hostname=name, allow_redirects=False
        )
        async with asyncio.timeout(self.timeout_s), asked as answer:
            return answer.headers.get(PROBE_ARM_HEADER)


def _homeless(route: Route, host: str) -> Problem:
    message = (
        f"no server of Gateway {', '.join(route.reach.gateways)} has host {host} on a port of the gateway's Service, "
        "for this namespace and without httpsRedirect; add it to a server's hosts, or choose another host"
    )
    return Problem(ConditionType.ROUTING_READY, Reason.ASSIGNMENT_UNPROVEN, message)
