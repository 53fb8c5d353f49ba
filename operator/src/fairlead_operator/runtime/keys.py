"""What the runtime runs: one controller, one key at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, order=True)
class ObjectKey:
    """Namespace and name of an object; the namespace of a cluster-wide one is empty."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """Return ``namespace/name``, or the name alone."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Controller(Protocol):
    """Brings one ModelDeployment a step nearer to what its owner asks for."""

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Reconcile ``key`` from the world as it is; it may be cancelled at any await.

        A key that exists no more is no error: clean up what is left of it and return None.

        Returns:
            Seconds until it is to be run again though nothing has changed; None for on events only.

        Raises:
            OperatorError: It failed. If retryable it is run again soon, else at the longest backoff or on an event.
        """
