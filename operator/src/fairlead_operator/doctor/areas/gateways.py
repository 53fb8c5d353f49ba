"""Is every gateway that a deployment is on there, with ready pods, and a Service before them?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from fairlead_operator.doctor.findings import Finding, Scope, bad, doubt, good
from fairlead_operator.doctor.installation import installation
from fairlead_operator.doctor.objects import Resource, holds, key, labels, quoted, selected
from fairlead_operator.doctor.parents import parents
from fairlead_operator.doctor.reader import Found, Listed, Reader
from fairlead_operator.doctor.webhooks import endpoints
from fairlead_operator.platforms.kubernetes.kinds import CONFIG_MAP, GATEWAY, POD, SERVICE

REPEATED_HEADERS = "envoy.reloadable_features.match_headers_individually"
"""Of Envoy's runtime; ``false`` makes a unit that is given twice a missing one (decision 0033)."""
_ANNOTATION = "proxy.istio.io/config"


@dataclass(frozen=True, slots=True)
class GatewayFacts:
    """One gateway."""

    name: str
    """``namespace/name``."""
    asked_by: tuple[str, ...]
    """Deployments on it."""
    gateway: Found
    pods: tuple[Resource, ...] = ()
    pods_problem: str = ""
    services: tuple[tuple[Resource, int | None], ...] = ()
    """Services before its pods, each with its ready endpoints; None where that cannot be told."""
    mesh: Found = field(default_factory=Found)
    """Istio's own settings."""


@dataclass(frozen=True, slots=True)
class Gateways:
    """Gateways."""

    area: str = "gateways"

    async def gather(self, reader: Reader, scope: Scope) -> tuple[GatewayFacts, ...]:
        """Read the gateways of all deployments asked about; the default one if there is no deployment."""
        found = await parents(reader, scope)
        usual = (await installation(reader, scope)).setting("gateway")
        asked: dict[str, list[str]] = {} if found.items else {usual: []}
        for parent in found.items:
            for name in parent["spec"].get("routing", {}).get("gateways") or [usual]:
                asked.setdefault(name, []).append(key(parent))
        return tuple([await _gathered(reader, name, tuple(by)) for name, by in sorted(asked.items())])

    def judge(self, facts: tuple[GatewayFacts, ...]) -> Iterator[Finding]:
        """Say what they mean."""
        for one in facts:
            yield from _judged(one)


async def _gathered(reader: Reader, name: str, asked_by: tuple[str, ...]) -> GatewayFacts:
    namespace, _, short = name.partition("/")
    gateway = await reader.one(GATEWAY, namespace, short)
    selector = ((gateway.resource or {}).get("spec") or {}).get("selector") or {}
    if not selector:
        return GatewayFacts(name, asked_by, gateway)
    pods = await reader.all(POD, labels=selector)
    if pods.problem:
        beside = await reader.all(POD, namespace, selector)
        pods = pods if beside.problem else beside
    services: list[tuple[Resource, int | None]] = []
    for place in sorted({pod["metadata"]["namespace"] for pod in pods.items}):
        listed: Listed = await reader.all(SERVICE, place)
        for service in listed.items:
            wanted = service["spec"].get("selector") or {}
            if any(wanted and wanted.items() <= labels(pod).items() for pod in pods.items):
                services.append((service, await endpoints(reader, place, service["metadata"]["name"])))
    mesh = await reader.one(CONFIG_MAP, "istio-system", "istio")
    return GatewayFacts(name, asked_by, gateway, pods.items, pods.problem, tuple(services), mesh)


def _judged(facts: GatewayFacts) -> Iterator[Finding]:
    by = (
        f" (asked for by {quoted(facts.asked_by)})"
        if facts.asked_by
        else " (the default; no deployment asks for it yet)"
    )
    namespace = facts.name.partition("/")[0]
    look = f"kubectl -n {namespace} get gateways.networking.istio.io"
    if facts.gateway.problem:
        yield doubt(facts.name, facts.gateway.problem, look)
        return
    if facts.gateway.resource is None:
        weight = bad if facts.asked_by else doubt
        yield weight(facts.name, f"is not there{by}", f"{look}; mend routing.gateways, or make it")
        return
    selector = facts.gateway.resource["spec"].get("selector") or {}
    words = ",".join(f"{name}={value}" for name, value in sorted(selector.items()))
    if facts.pods_problem:
        yield doubt(facts.name, facts.pods_problem, f"kubectl get pods -A -l {words}")
        return
    ready = [pod for pod in selected(facts.pods, selector) if holds(pod, "Ready")]
    if not facts.pods:
        said = f"its selector {words or '{}'} matches no pod{by}"
        yield bad(facts.name, said, f"kubectl get pods -A -l {words}; mend spec.selector of the Gateway")
        return
    if not ready:
        yield bad(facts.name, f"{len(facts.pods)} pods, none is ready{by}", f"kubectl describe pods -A -l {words}")
        return
    yield good(facts.name, f"selects {len(facts.pods)} pods, {len(ready)} ready{by}")
    yield _service(facts)
    yield _repeated(facts, ready)


def _service(facts: GatewayFacts) -> Finding:
    subject = f"{facts.name} Service"
    if not facts.services:
        return bad(subject, "no Service stands before its pods: nobody reaches it", "kubectl get services -A")
    wanted = {int(server["port"]["number"]) for server in (facts.gateway.resource or {})["spec"].get("servers", [])}
    fitting = [(one, count) for one, count in facts.services if wanted & {int(p["port"]) for p in one["spec"]["ports"]}]
    if not fitting:
        ports = ", ".join(map(str, sorted(wanted)))
        said = f"{quoted(key(one) for one, _ in facts.services)} has none of the Gateway's ports ({ports})"
        return bad(subject, said, f"kubectl -n {facts.services[0][0]['metadata']['namespace']} edit service")
    service, count = fitting[0]
    if count == 0:
        look = f"kubectl -n {service['metadata']['namespace']} get endpointslices"
        return bad(subject, f"{key(service)} has no ready endpoint", look)
    told = "endpoints cannot be read" if count is None else f"{count} ready"
    return good(subject, f"{key(service)}, {told}")


def _repeated(facts: GatewayFacts, pods: list[Resource]) -> Finding:
    subject = f"{facts.name} repeated headers"
    told = [runtime_value(pod, facts.mesh.resource) for pod in pods]
    if all(value == "false" for value in told):
        return good(subject, f"{REPEATED_HEADERS} is false: a unit given twice counts as missing")
    from_agent = any(_ANNOTATION in (pod["metadata"].get("annotations") or {}) for pod in pods) or facts.mesh.resource
    trouble = "a unit that is given twice is split by another law, and exposes nobody"
    said = f"{REPEATED_HEADERS} is not false: {trouble}"
    if not from_agent:
        said = f"{REPEATED_HEADERS} cannot be told from here; unless it is false, {trouble}"
    fix = f'annotate the gateway\'s pods: {_ANNOTATION}: {{"runtimeValues": {{"{REPEATED_HEADERS}": "false"}}}}'
    return doubt(subject, said, fix)


def runtime_value(pod: Resource, mesh: Resource | None) -> str | None:
    """Return the runtime value that Istio's agent gives this pod's Envoy; None if none is set where it can be seen."""
    texts = [(pod["metadata"].get("annotations") or {}).get(_ANNOTATION, "")]
    whole = _mapping(((mesh or {}).get("data") or {}).get("mesh", ""))
    configs = [*map(_mapping, texts), whole.get("defaultConfig") or {}]
    values = [(config.get("runtimeValues") or {}).get(REPEATED_HEADERS) for config in configs]
    found = next((value for value in values if value is not None), None)
    return None if found is None else str(found).lower()


def _mapping(text: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}
