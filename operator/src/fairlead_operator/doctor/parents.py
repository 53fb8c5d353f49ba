"""The ModelDeployments that were asked about, as they are in the cluster."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead_operator.doctor.findings import Scope
from fairlead_operator.doctor.objects import Resource
from fairlead_operator.doctor.reader import Reader
from fairlead_operator.platforms.kubernetes.kinds import MODEL_DEPLOYMENT


@dataclass(frozen=True, slots=True)
class Parents:
    """ModelDeployments, or why they cannot be known."""

    items: tuple[Resource, ...] = ()
    problem: str = ""

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Where they are."""
        return tuple(sorted({one["metadata"]["namespace"] for one in self.items}))


async def parents(reader: Reader, scope: Scope) -> Parents:
    """Read them."""
    listed = await reader.all(MODEL_DEPLOYMENT, scope.namespace)
    found = (one for one in listed.items if scope.has(one["metadata"]["namespace"], one["metadata"]["name"]))
    return Parents(tuple(found), listed.problem)


def places(found: Parents, scope: Scope) -> tuple[str, ...]:
    """Return the namespaces to look into: those of deployments, and the one that was asked about."""
    return tuple(dict.fromkeys((*found.namespaces, *([scope.namespace] if scope.namespace else []))))
