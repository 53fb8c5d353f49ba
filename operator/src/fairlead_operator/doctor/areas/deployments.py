"""What each ModelDeployment says about itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fairlead_operator.api.conditions import ConditionType, Reason
from fairlead_operator.doctor.findings import Finding, Scope, bad, doubt, good
from fairlead_operator.doctor.objects import Resource, key
from fairlead_operator.doctor.parents import Parents, parents
from fairlead_operator.doctor.reader import Reader

RUNBOOK = "docs/runbooks/conditions.md"

_AT_REST = frozenset({Reason.AS_SPECIFIED, Reason.PAUSED, Reason.STOPPED})
"""Reasons of Progressing=False that need nobody."""
_PASSING = frozenset(
    {Reason.STARTING, Reason.SCALING_UP, Reason.NOT_OBSERVING, Reason.REDUCED, Reason.SPEC_BEHIND, Reason.ROLLED_BACK}
)
"""Reasons that usually go by themselves, or keep nothing from working."""


@dataclass(frozen=True, slots=True)
class DeploymentFacts:
    """What was found, and what was asked about."""

    found: Parents
    scope: Scope


@dataclass(frozen=True, slots=True)
class Deployments:
    """ModelDeployments."""

    area: str = "ModelDeployments"

    async def gather(self, reader: Reader, scope: Scope) -> DeploymentFacts:
        """Read them."""
        return DeploymentFacts(await parents(reader, scope), scope)

    def judge(self, facts: DeploymentFacts) -> Iterator[Finding]:
        """Name every condition that does not hold."""
        if facts.found.problem:
            yield doubt("all", facts.found.problem, "kubectl auth can-i list modeldeployments.serving.fairlead.dev")
        elif not facts.found.items:
            yield _none(facts.scope)
        for one in facts.found.items:
            yield from _conditions(one)


def _none(scope: Scope) -> Finding:
    if scope.name is not None:
        where = f"{scope.namespace}/{scope.name}"
        return bad(where, "there is no such ModelDeployment", f"kubectl -n {scope.namespace} get mdep")
    where = f"in {scope.namespace}" if scope.namespace else "anywhere"
    return good("all", f"there are none {where} (yet)")


def _conditions(deployment: Resource) -> Iterator[Finding]:
    subject, namespace, name = key(deployment), deployment["metadata"]["namespace"], deployment["metadata"]["name"]
    status = deployment.get("status") or {}
    conditions = status.get("conditions") or []
    look = f"kubectl -n {namespace} describe mdep {name}"
    if not conditions:
        yield bad(
            subject,
            "has no status: no operator has looked at it",
            "see `operator` above: it may not serve this namespace",
        )
        return
    behind = deployment["metadata"].get("generation", 0) - status.get("observedGeneration", 0)
    if behind > 0:
        yield doubt(subject, f"the operator has not seen its last {behind} edits yet", look)
    wrong = [one for one in conditions if not _is_well(one)]
    # Ready sums up the others: it is told only where none of them says why.
    wrong = [one for one in wrong if one["type"] != ConditionType.READY] or wrong
    for one in wrong:
        said = f"{one['type']} is {one['status']}, {one['reason']}: {one.get('message', '')}"
        weigh = doubt if one["status"] == "Unknown" or one["reason"] in _PASSING else bad
        yield weigh(subject, said, f"{RUNBOOK}#{one['reason'].lower()}; {look}")
    if not wrong:
        shares = ", ".join(f"{one['name']} {one.get('weight', 0):g} %" for one in status.get("variants") or ())
        yield good(subject, f"is Ready: {shares}")


def _is_well(condition: Resource) -> bool:
    if condition["type"] == ConditionType.PROGRESSING:
        return condition["status"] == "True" or condition["reason"] in _AT_REST
    return bool(condition["status"] == "True")
