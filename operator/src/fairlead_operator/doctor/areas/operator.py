"""Does an operator run, of which release, and does it hold the Lease?"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fairlead_operator.doctor.findings import Finding, Scope, bad, doubt, good
from fairlead_operator.doctor.installation import NAME, Installation, installation
from fairlead_operator.doctor.objects import Resource, condition, holds, key, release, tag
from fairlead_operator.doctor.reader import Found, Reader
from fairlead_operator.platforms.kubernetes.kinds import LEASE, POD

_INSTALL = "helm upgrade --install fairlead charts/fairlead -n fairlead-system"
_STALE_AFTER = 4
"""A Lease that was not renewed for so many times its duration has no holder; less may be clocks that differ."""


def _cli_release() -> str:
    return importlib.metadata.version("fairlead-operator")


@dataclass(frozen=True, slots=True)
class OperatorFacts:
    """What there is of the operator."""

    installed: Installation
    lease: Found = field(default_factory=Found)
    leader: Found = field(default_factory=Found)
    """The pod that holds the Lease."""
    cli_release: str = field(default_factory=_cli_release)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def lease_age_s(self) -> float | None:
        """How long ago the Lease was renewed; None if nobody holds it."""
        spec = (self.lease.resource or {}).get("spec") or {}
        if not spec.get("holderIdentity") or not spec.get("renewTime"):
            return None
        return (self.now - datetime.fromisoformat(spec["renewTime"])).total_seconds()

    @property
    def is_lease_fresh(self) -> bool:
        """Whether somebody holds the Lease now."""
        age_s = self.lease_age_s
        spec = (self.lease.resource or {}).get("spec") or {}
        return age_s is not None and age_s < _STALE_AFTER * float(spec.get("leaseDurationSeconds") or 15)


@dataclass(frozen=True, slots=True)
class Operator:
    """The operator."""

    area: str = "operator"

    async def gather(self, reader: Reader, scope: Scope) -> OperatorFacts:
        """Read Deployment, Lease and the leader's pod."""
        installed = await installation(reader, scope)
        name = installed.setting("lease_name")
        places = [installed.namespace] if installed.deployment else installed.places
        leases = [await reader.one(LEASE, place, name) for place in places]
        lease = next((one for one in leases if one.resource), leases[0])
        holder = str(((lease.resource or {}).get("spec") or {}).get("holderIdentity") or "")
        pod = holder.rpartition("_")[0]
        leader = (
            await reader.one(POD, str(lease.resource["metadata"]["namespace"]), pod)
            if lease.resource and pod
            else Found()
        )
        return OperatorFacts(installed, lease, leader)

    def judge(self, facts: OperatorFacts) -> Iterator[Finding]:
        """Say what they mean."""
        if facts.installed.deployment is None:
            yield _elsewhere(facts)
        else:
            yield _available(facts.installed.deployment)
            yield _release(facts)
        yield from _lease(facts)


def _elsewhere(facts: OperatorFacts) -> Finding:
    places = ", ".join(facts.installed.places)
    if facts.installed.problem:
        return doubt("Deployment", facts.installed.problem, f"kubectl -n {places} get deployment {NAME}")
    if facts.is_lease_fresh:
        said = f"none in {places}, and somebody holds the Lease: the operator runs outside the cluster"
        return doubt("Deployment", said, f"fine while developing; else {_INSTALL}")
    said = f"no Deployment {NAME} in {places}, and no Lease is held: nobody serves ModelDeployments"
    return bad("Deployment", said, f"{_INSTALL} (or name its namespace: --operator-namespace)")


def _available(deployment: Resource) -> Finding:
    wanted = deployment["spec"].get("replicas", 1)
    available = deployment.get("status", {}).get("availableReplicas", 0)
    said = f"{key(deployment)}: {available} of {wanted} available"
    look = f"kubectl -n {deployment['metadata']['namespace']} describe deployment {NAME}"
    if available and holds(deployment, "Available"):
        return good("Deployment", said) if available >= wanted else doubt("Deployment", said, look)
    why = condition(deployment, "ReplicaFailure") or condition(deployment, "Progressing") or {}
    return bad("Deployment", ": ".join(part for part in (said, str(why.get("message", ""))) if part), look)


def _release(facts: OperatorFacts) -> Finding:
    running = tag(facts.installed.image)
    if release(running) is None:
        return doubt("release", f"image {facts.installed.image} tells none", f"use a tag such as {facts.cli_release}")
    if running == facts.cli_release:
        return good("release", f"{running}, as this program")
    said = f"operator {running}, this program {facts.cli_release}"
    return doubt(
        "release", said, "use the program of the operator's release, or upgrade: helm upgrade fairlead charts/fairlead"
    )


def _lease(facts: OperatorFacts) -> Iterator[Finding]:
    if facts.lease.problem:
        yield doubt("Lease", facts.lease.problem, f"kubectl -n {facts.installed.namespace} get lease")
        return
    if facts.lease.resource is None:
        if facts.installed.deployment is not None:
            said = f"no Lease {facts.installed.setting('lease_name')} in {facts.installed.namespace}: nobody writes"
            yield bad("Lease", said, f"kubectl -n {facts.installed.namespace} logs deployment/{NAME}")
        return
    lease, age_s = facts.lease.resource, facts.lease_age_s
    look = f"kubectl -n {lease['metadata']['namespace']} logs deployment/{NAME} --tail=50"
    if age_s is None:
        yield bad("Lease", f"{key(lease)} is held by nobody", look)
        return
    holder = lease["spec"]["holderIdentity"].rpartition("_")[0] or lease["spec"]["holderIdentity"]
    if not facts.is_lease_fresh:
        yield bad("Lease", f"{holder} has not renewed {key(lease)} for {age_s:.0f} s", look)
        return
    yield good("Lease", f"{key(lease)} is held by {holder}, renewed {max(age_s, 0):.0f} s ago")
    if facts.leader.resource is not None:
        ready = holds(facts.leader.resource, "Ready")
        yield good("leader", f"pod {holder} is ready") if ready else bad("leader", f"pod {holder} is not ready", look)
    elif facts.installed.deployment is not None and not facts.leader.problem:
        yield doubt("leader", f"{holder} is no pod of {lease['metadata']['namespace']}: somebody else writes", look)
