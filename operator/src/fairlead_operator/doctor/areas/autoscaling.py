"""Can the number of replicas follow the load?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fairlead_operator.doctor.findings import Finding, Scope, doubt, good
from fairlead_operator.doctor.kinds import API_SERVICE
from fairlead_operator.doctor.objects import condition, holds, key, quoted
from fairlead_operator.doctor.parents import parents
from fairlead_operator.doctor.reader import Found, Reader

METRICS = "v1beta1.metrics.k8s.io"
_INSTALL = "install metrics-server: https://github.com/kubernetes-sigs/metrics-server"


@dataclass(frozen=True, slots=True)
class AutoscalingFacts:
    """The metrics API, and who needs it."""

    metrics: Found
    scaling: tuple[str, ...] = ()
    """Deployments with a variant whose replicas may grow."""


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """The metrics API."""

    area: str = "autoscaling"

    async def gather(self, reader: Reader, scope: Scope) -> AutoscalingFacts:
        """Read whether metrics are served."""
        found = await parents(reader, scope)
        growing = [key(one) for one in found.items if any(map(_may_grow, one["spec"]["variants"]))]
        return AutoscalingFacts(await reader.one(API_SERVICE, "", METRICS), tuple(growing))

    def judge(self, facts: AutoscalingFacts) -> Iterator[Finding]:
        """Say what it means."""
        trouble = "variants stay at minReplicas (more while a share needs it)"
        whose = f": {quoted(facts.scaling)}" if facts.scaling else ""
        if facts.metrics.problem:
            yield doubt("metrics API", facts.metrics.problem, f"kubectl get apiservice {METRICS}")
        elif facts.metrics.resource is None:
            yield doubt("metrics API", f"{METRICS} is not served; {trouble}{whose}", _INSTALL)
        elif not holds(facts.metrics.resource, "Available"):
            why = (condition(facts.metrics.resource, "Available") or {}).get("message", "it does not answer")
            yield doubt("metrics API", f"{why}; {trouble}{whose}", f"kubectl describe apiservice {METRICS}")
        else:
            yield good("metrics API", f"{METRICS} is served")


def _may_grow(variant: dict[str, object]) -> bool:
    scaling = variant.get("scaling")
    given = scaling if isinstance(scaling, dict) else {}
    least = int(given.get("minReplicas", 1))
    return int(given.get("maxReplicas", max(least, 3))) > least
