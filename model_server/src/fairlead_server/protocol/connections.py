"""What connections of every protocol have in common, so that a process opens and ends them without knowing which."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Drained(Protocol):
    """Something that answers requests until it is told to end."""

    def retire(self) -> None:
        """Ask peers to go elsewhere: from now on an answer ends its connection (``connection: close``, GOAWAY).

        New connections and requests are still answered.
        """

    async def drain(self, deadline_s: float) -> None:
        """Answer what is in flight and close every connection; what is not answered in time is cut off.

        Nobody opens connections any more.

        Args:
            deadline_s: Seconds from now.
        """


class Connections(Drained, Protocol):
    """All connections of one protocol, wherever they were accepted."""

    def open(self) -> asyncio.Protocol:
        """Return the protocol of one new connection; the event loop gives it its transport."""
