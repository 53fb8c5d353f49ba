"""The EnvoyFilter of a deployment: it makes the gateway split by the assignment law rather than by chance."""

from __future__ import annotations

from collections.abc import Mapping

from fairlead_operator.core.observed import Route
from fairlead_operator.platforms.kubernetes.kinds import ENVOY_FILTER
from fairlead_operator.platforms.kubernetes.render.hashed import HashedRoute, hashed_routes
from fairlead_operator.platforms.kubernetes.render.names import Manifest, Place, foreign


def envoy_filter(
    place: Place,
    route: Route,
    gateway_namespace: str,
    selector: Mapping[str, str],
    *,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """Return the EnvoyFilter for every route of ``route`` that is split by hash.

    It is written after the VirtualService and deleted before it. Weights are not in it.

    Args:
        place: Whose.
        route: The route; only what ``Route.law`` depends on matters.
        gateway_namespace: Namespace of the gateway's pods, where it must be.
        selector: Labels of the gateway's pods.
        annotations: Annotations of the object.
    """
    manifest = foreign(ENVOY_FILTER, place, gateway_namespace, annotations=annotations)
    manifest["spec"] = {
        "workloadSelector": {"labels": dict(selector)},
        "configPatches": [_patch(hashed) for hashed in hashed_routes(place, route)],
    }
    return manifest


def _patch(hashed: HashedRoute) -> Manifest:
    return {
        "applyTo": "HTTP_ROUTE",
        "match": {
            "context": "GATEWAY",
            "routeConfiguration": {"vhost": {"route": {"name": hashed.name}}},
        },
        "patch": {
            "operation": "MERGE",
            "value": {"route": {"hash_policy": [hashed.policy], "weighted_clusters": {"use_hash_policy": True}}},
        },
    }
