"""A server of several processes, as seen from the one that is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from prometheus_client.core import Metric


class Others(Protocol):
    """This process and those beside it, as one."""

    async def refresh(self) -> None:
        """Ask the others how they are now."""

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of all, as of the last :meth:`refresh`."""

    def told(self, metadata: Mapping[str, Any], version: str) -> dict[str, Any]:
        """Return a model's V2 metadata with the report of all, as of the last :meth:`refresh`.

        Args:
            metadata: This process' answer.
            version: The model's.
        """

    def statistics(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Return statistics of models in all processes, as of the last :meth:`refresh`; ``told`` are this one's."""
