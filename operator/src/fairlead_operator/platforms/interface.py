"""What the core asks of a platform; whether it drives processes or a cluster, the plan does not know."""

from __future__ import annotations

from typing import Protocol

from fairlead_operator.core.observed import Observed
from fairlead_operator.core.plan import Action


class Platform(Protocol):
    """Carries out plans, and says what is."""

    async def observe(self) -> Observed:
        """Return the world as it is now."""

    async def apply(self, action: Action) -> None:
        """Carry out one action; return when it may be built upon.

        A route is confirmed by the gateway when this returns. A server's start and its drain go on behind it.

        Raises:
            GatewayError: The gateway refused the route, or did not confirm it in time.
        """

    async def changed(self, timeout_s: float) -> bool:
        """Wait until something observable has changed, at most ``timeout_s`` seconds; return whether it has."""
