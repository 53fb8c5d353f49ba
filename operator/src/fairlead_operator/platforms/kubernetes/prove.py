"""Whether a gateway splits by the assignment law: known units are sent through it, to a route that touches no user."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import aiohttp

from fairlead import assign
from fairlead.route import RouteKey
from fairlead_operator.core.observed import Route
from fairlead_operator.errors import GatewayError
from fairlead_operator.platforms.kubernetes.gateways import Entry
from fairlead_operator.platforms.kubernetes.render.probe import (
    PROBE_ARM_HEADER,
    PROBE_HEADER,
    PROBE_LAYOUT,
    PROBE_PATH,
    probe_value,
)

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
        """Return once every entry splits known units by the law of ``route``.

        Raises:
            GatewayError: One does not, within the patience.
        """
        every = tuple(entries)
        if not every:
            raise GatewayError("no Service is in front of the gateway's pods on a port of the Gateway; make one")
        end_s = self.now() + self.patience_s
        for entry in every:
            problem = await self._problem(route, key, entry)
            while problem is not None and self.now() < end_s:
                await asyncio.sleep(_PAUSE_S)
                problem = await self._problem(route, key, entry)
            if problem is not None:
                raise GatewayError(f"{entry.internal} does not split by the assignment law: {problem}")

    async def _problem(self, route: Route, key: RouteKey, entry: Entry) -> str | None:
        for host in route.reach.hosts:
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
        scheme = "https" if entry.tls else "http"
        url = f"{scheme}://{entry.address}:{entry.port}{PROBE_PATH}"
        name = host if entry.tls else None
        # Whose certificate it is proves nothing here: the probe's value is in no answer.
        asked = self.session.get(url, headers=headers, ssl=not entry.tls, server_hostname=name)
        async with asyncio.timeout(self.timeout_s), asked as answer:
            return answer.headers.get(PROBE_ARM_HEADER)
