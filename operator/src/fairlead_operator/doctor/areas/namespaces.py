"""Do the labels of the deployments' namespaces let pods be made as they should, and is there room in quotas?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fairlead_operator.doctor.findings import Finding, Scope, bad, doubt, good
from fairlead_operator.doctor.kinds import RESOURCE_QUOTA
from fairlead_operator.doctor.objects import key, labels
from fairlead_operator.doctor.parents import parents, places
from fairlead_operator.doctor.reader import Found, Listed, Reader
from fairlead_operator.platforms.kubernetes.kinds import NAMESPACE

ENFORCE = "pod-security.kubernetes.io/enforce"


@dataclass(frozen=True, slots=True)
class NamespaceFacts:
    """One namespace."""

    name: str
    namespace: Found
    quotas: Listed


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Namespaces of deployments."""

    area: str = "namespaces"

    async def gather(self, reader: Reader, scope: Scope) -> tuple[NamespaceFacts, ...]:
        """Read them with their quotas."""
        return tuple(
            [
                NamespaceFacts(name, await reader.one(NAMESPACE, "", name), await reader.all(RESOURCE_QUOTA, name))
                for name in places(await parents(reader, scope), scope)
            ]
        )

    def judge(self, facts: tuple[NamespaceFacts, ...]) -> Iterator[Finding]:
        """Say what they mean."""
        for one in facts:
            if one.namespace.problem:
                yield doubt(one.name, one.namespace.problem, f"kubectl get namespace {one.name}")
            elif one.namespace.resource is None:
                yield bad(one.name, "there is no such namespace", f"kubectl create namespace {one.name}")
            else:
                yield from _labels(one.name, labels(one.namespace.resource))
                yield from _quotas(one)


def _labels(name: str, given: object) -> Iterator[Finding]:
    found = dict(given) if isinstance(given, dict) else {}
    if "control-plane" in found:
        said = "is labelled control-plane: KServe leaves its pods alone, so they start without their model"
        yield bad(name, said, f"kubectl label namespace {name} control-plane-")
    level = found.get(ENFORCE)
    if found.get("istio-injection") == "enabled" or "istio.io/rev" in found:
        said = "has sidecars injected; callers inside the mesh that ask a predictor directly get variants by chance"
        yield doubt(name, said, "have them call the gateway's Service with the Host (status.url.internal)")
    if level is None:
        said = "enforces no pod security; Fairlead's pods pass `restricted`"
        yield doubt(name, said, f"kubectl label namespace {name} {ENFORCE}=restricted")
    else:
        yield good(name, f"enforces pod security {level}, which Fairlead's pods pass")


def _quotas(facts: NamespaceFacts) -> Iterator[Finding]:
    for quota in facts.quotas.items:
        status = quota.get("status") or {}
        hard, used = status.get("hard") or {}, status.get("used") or {}
        full = sorted(name for name, most in hard.items() if used.get(name) == most and most != "0")
        if full:
            said = f"{', '.join(full)} used up in {key(quota)}: a rollout needs room for old and new side by side"
            yield doubt(f"{facts.name} quota", said, f"kubectl -n {facts.name} describe quota")
