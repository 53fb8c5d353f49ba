"""What the operator runs in a cluster: the controller of ModelDeployments, its sweeps, and what depends on what."""

from __future__ import annotations

from fairlead_operator.assembly import Access, Control
from fairlead_operator.platforms.kubernetes.kinds import PARENT
from fairlead_operator.runtime.keys import ObjectKey


class _Observing:
    """Reads a ModelDeployment and changes nothing."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def reconcile(self, key: ObjectKey) -> float | None:
        self._access.objects.get(PARENT.kind, key)
        return None


def control_of(access: Access) -> Control:
    """Return what is run."""
    return Control(_Observing(access))
