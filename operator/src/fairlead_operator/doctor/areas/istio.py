"""Is Istio there, alive, and new enough to hold a unit to its arm?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead_operator.doctor.findings import Finding, Scope, bad, doubt, good
from fairlead_operator.doctor.kinds import DEFINITION, VALIDATING_WEBHOOKS
from fairlead_operator.doctor.objects import images, key, quoted, release, tag
from fairlead_operator.doctor.reader import Found, Listed, Reader, Trial
from fairlead_operator.doctor.webhooks import Answering, answering, client_configs
from fairlead_operator.platforms.kubernetes.kinds import DEPLOYMENT, VIRTUAL_SERVICE

OLDEST = (1, 28)
"""The first whose proxies can split by a hash: Envoy 1.36."""
NEEDED = ("virtualservices", "destinationrules", "envoyfilters", "gateways")
NETWORKING = "networking.istio.io"
SECURITY = ("authorizationpolicies", "requestauthentications")
"""Definitions that only units from tokens need."""
_INSTALL = "install Istio 1.28 or newer: https://istio.io/latest/docs/setup/install/"


@dataclass(frozen=True, slots=True)
class IstioFacts:
    """What there is of Istio."""

    definitions: Mapping[str, Found]
    """By ``plural.group``."""
    controllers: Listed = field(default_factory=Listed)
    webhook: Answering | None = None
    webhooks_known: bool = True
    trial: Trial | None = None
    """Of a VirtualService that only Istio itself refuses."""


@dataclass(frozen=True, slots=True)
class Istio:
    """Istio."""

    area: str = "Istio"

    async def gather(self, reader: Reader, scope: Scope) -> IstioFacts:
        """Read definitions, istiod and its webhook, and have it refuse a VirtualService."""
        names = [*(f"{one}.{NETWORKING}" for one in NEEDED), *(f"{one}.security.istio.io" for one in SECURITY)]
        validating = await reader.all(VALIDATING_WEBHOOKS)
        return IstioFacts(
            definitions={name: await reader.one(DEFINITION, "", name) for name in names},
            controllers=await reader.all(DEPLOYMENT, labels={"app": "istiod"}),
            webhook=await answering(reader, client_configs(validating.items, NETWORKING)),
            webhooks_known=not (validating.problem or validating.kind_missing),
            trial=await reader.attempt(VIRTUAL_SERVICE, refusable(scope.namespace or "default")),
        )

    def judge(self, facts: IstioFacts) -> Iterator[Finding]:
        """Say what they mean."""
        absent = [name for name, found in facts.definitions.items() if found.is_absent]
        needed = [name for name in absent if name.endswith(NETWORKING)]
        unknown = [found.problem for found in facts.definitions.values() if found.problem]
        if needed:
            yield bad("CRDs", f"{quoted(needed)} not installed", _INSTALL)
            return
        if unknown:
            yield doubt("CRDs", unknown[0], "kubectl get crd | grep istio.io")
        elif absent:
            yield doubt("CRDs", f"{quoted(absent)} not installed: no units from tokens", _INSTALL)
        else:
            yield good("CRDs", f"{len(facts.definitions)} of {len(facts.definitions)} are there")
        yield from _controller(facts)
        yield _alive(facts)


def refusable(namespace: str) -> dict[str, Any]:
    """Return a VirtualService that the schema takes and only Istio's own validation refuses: no weight at all."""
    routes = [{"destination": {"host": name}, "weight": 0} for name in ("a.example.invalid", "b.example.invalid")]
    return {
        "apiVersion": VIRTUAL_SERVICE.api_version,
        "kind": VIRTUAL_SERVICE.kind,
        "metadata": {"name": "fairlead-doctor", "namespace": namespace},
        "spec": {"hosts": ["fairlead-doctor.example.invalid"], "http": [{"route": routes}]},
    }


def _controller(facts: IstioFacts) -> Iterator[Finding]:
    look = "kubectl get deployments -A -l app=istiod"
    if not facts.controllers.items:
        outside = facts.webhook is not None and facts.webhook.outside
        where = (
            f"its webhook is at {facts.webhook.address}: it runs outside the cluster"
            if outside and facts.webhook
            else ""
        )
        yield doubt("istiod", where or facts.controllers.problem or "no Deployment is labelled app=istiod", look)
        said = "cannot be told without istiod's Deployment; 1.28 or newer is needed for sticky splits"
        yield doubt("version", said, "istioctl version (the operator proves the split itself: condition RoutingReady)")
        return
    for controller in facts.controllers.items:
        available = controller.get("status", {}).get("availableReplicas", 0)
        said = f"{key(controller)}: {available} available"
        if available:
            yield good("istiod", said)
        else:
            yield bad(
                "istiod", f"{said}: routes stay as they are", f"{look}; kubectl -n istio-system logs deployment/istiod"
            )
        told = next((tag(one) for one in images(controller["spec"]["template"]["spec"]) if release(tag(one))), "")
        version = release(told)
        if version is None:
            yield doubt("version", f"the image of {key(controller)} tells none", "istioctl version")
        elif version[:2] < OLDEST:
            yield bad(
                "version", f"{told}: splits would not be sticky, so none is made; 1.28 is needed", "upgrade Istio"
            )
        else:
            yield good("version", told)


def _alive(facts: IstioFacts) -> Finding:
    if facts.webhook is None:
        said = "is not registered" if facts.webhooks_known else "you may not look at webhooks"
        return doubt("validation", said, "kubectl get validatingwebhookconfigurations | grep istio")
    if facts.webhook.endpoints == 0:
        said = f"Service {facts.webhook.address} has no ready endpoint: routes cannot be written"
        return bad("validation", said, "kubectl -n istio-system get pods -l app=istiod")
    if facts.trial is None:
        return doubt("validation", "you may not try a VirtualService (dry run)", "run it as somebody who may")
    if facts.trial.refused_by_webhook:
        return good("validation", "istiod answered: it refused a route that it has to refuse (dry run)")
    if facts.trial.accepted:
        said = "a route that istiod has to refuse was accepted: it was not asked, or is of a kind we do not know"
        return doubt("validation", said, "kubectl -n istio-system logs deployment/istiod")
    return bad("validation", f"does not answer: {facts.trial.words}", "start istiod; kubectl -n istio-system get pods")
