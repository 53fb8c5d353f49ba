"""Who may reach a deployment's pods, how many may be taken away at a time, and which requests bring a verified unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from fairlead.route import RouteKey
from fairlead_operator.core.observed import Route
from fairlead_operator.platforms.kubernetes.kinds import AUTHORIZATION_POLICY, NETWORK_POLICY, POD_DISRUPTION_BUDGET
from fairlead_operator.platforms.kubernetes.render.names import (
    DEPLOYMENT_LABEL,
    REVISION_LABEL,
    Manifest,
    Place,
    foreign,
    owned,
    revision_labels,
)
from fairlead_operator.platforms.kubernetes.render.pods import GRPC_PORT, HTTP_PORT
from fairlead_operator.platforms.kubernetes.render.probe import PROBE_HEADER, PROBE_PATH, probe_value

_NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"


def network_policy(place: Place, namespaces: Iterable[str]) -> Manifest:
    """Return the NetworkPolicy that lets pods of ``namespaces`` alone reach the deployment's servers.

    What the servers reach is left open: nobody knows where a feature store, a model store or a ledger is, and who
    does can add a policy of their own.

    Args:
        place: Where.
        namespaces: Of the gateway's pods, of the operator, of monitoring.
    """
    manifest = owned(NETWORK_POLICY, place, place.name)
    manifest["spec"] = {
        "podSelector": {"matchLabels": {DEPLOYMENT_LABEL: place.name}},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "from": [
                    {"namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: namespace}}}
                    for namespace in sorted(set(namespaces))
                ],
                "ports": [{"port": port, "protocol": "TCP"} for port in (HTTP_PORT, GRPC_PORT)],
            }
        ],
    }
    return manifest


def pod_disruption_budget(place: Place, variant: str, revision: str) -> Manifest:
    """Return the PodDisruptionBudget of a revision: one pod at a time, and never a node that cannot be drained."""
    manifest = owned(POD_DISRUPTION_BUDGET, place, revision, labels=revision_labels(variant, revision))
    manifest["spec"] = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": {REVISION_LABEL: revision}},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return manifest


def authorization_policy(
    place: Place,
    route: Route,
    key: RouteKey,
    gateway_namespace: str,
    selector: Mapping[str, str],
    *,
    issuers: Iterable[str] = (),
) -> Manifest:
    """Return the AuthorizationPolicy that refuses requests to our hosts whose unit is no claim of a verified token.

    Without a token, or with one that lacks the claim, a client's own unit header would be believed. It denies and never
    allows: other hosts of the gateway, whatever their issuer, answer as before. Our own probes are let through. Istio
    compares claims that are text, so a number or a boolean counts as lacking.

    Args:
        place: Whose.
        route: The route; its hosts and its salt matter.
        key: As for ``virtual_service``: what the probe's value is made of.
        gateway_namespace: Namespace of the gateway's pods, where it must be.
        selector: Labels of the gateway's pods.
        issuers: Who must have issued the token: those whose claim the gateway copies to the unit header. Anyone that
            the gateway knows if left out.
    """
    trusted = [f"{issuer}/*" for issuer in issuers] or ["*"]
    hosts = [name for host in route.reach.hosts for name in (host, f"{host}:*")]
    users = {"to": [{"operation": {"hosts": hosts, "notPaths": [PROBE_PATH]}}]}
    probes = {"to": [{"operation": {"hosts": hosts, "paths": [PROBE_PATH]}}]}
    probed = {"key": f"request.headers[{PROBE_HEADER}]", "notValues": [probe_value(route, key)]}
    untrusted = {"from": [{"source": {"notRequestPrincipals": trusted}}]}
    unnamed = {"key": _claim_attribute(route), "notValues": ["*"]}
    manifest = foreign(AUTHORIZATION_POLICY, place, gateway_namespace)
    manifest["spec"] = {
        "selector": {"matchLabels": dict(selector)},
        "action": "DENY",
        "rules": [
            {**untrusted, **users},
            {**users, "when": [unnamed]},
            {**untrusted, **probes, "when": [probed]},
            {**probes, "when": [unnamed, probed]},
        ],
    }
    return manifest


def _claim_attribute(route: Route) -> str:
    """Return Istio's name of the unit's claim; a dot leads into a claim, for outputClaimToHeaders as here."""
    claim = route.reach.unit.jwt_claim or "sub"
    return "request.auth.claims" + "".join(f"[{part}]" for part in claim.split("."))
