"""DestinationRules: how the gateway spreads requests over the pods of one revision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fairlead_operator.api.v1alpha1 import seconds
from fairlead_operator.core.desired import Reach
from fairlead_operator.platforms.kubernetes.kinds import DESTINATION_RULE
from fairlead_operator.platforms.kubernetes.render.names import REVISION_LABEL, Manifest, Place, owned
from fairlead_operator.platforms.kubernetes.render.virtual_service import duration

_CONNECT_S: Final = 2
_IDLE_S: Final = 3
"""Shorter than the servers' keep-alive, so that a request never meets a connection that its server is closing."""


def destination_rules(place: Place, reach: Reach, revisions: Iterable[str]) -> list[Manifest]:
    """Return one DestinationRule for each of ``revisions``.

    Never with consistentHash: its policy would come before the filter's and change the assignment law. TLS is left to
    the mesh.
    """
    return [_rule(place, reach, revision) for revision in revisions]


def _rule(place: Place, reach: Reach, revision: str) -> Manifest:
    manifest = owned(DESTINATION_RULE, place, revision, labels={REVISION_LABEL: revision})
    manifest["spec"] = {
        "host": place.host(revision),
        "trafficPolicy": {
            "loadBalancer": {"simple": "LEAST_REQUEST"},
            "connectionPool": _pool(reach),
            **_outliers(reach),
        },
    }
    return manifest


def _pool(reach: Reach) -> Manifest:
    pool = reach.connection_pool
    tcp: Manifest = {"connectTimeout": duration(_CONNECT_S)}
    http: Manifest = {"idleTimeout": duration(_IDLE_S)}
    if pool:
        tcp["maxConnections"] = pool.max_connections
        http["http1MaxPendingRequests"] = pool.max_pending_requests
        http["http2MaxRequests"] = pool.max_requests
    return {"tcp": tcp, "http": http}


def _outliers(reach: Reach) -> Manifest:
    found = reach.outlier_detection
    if found is None:
        return {}
    return {
        "outlierDetection": {
            "consecutive5xxErrors": found.consecutive_5xx,
            "interval": duration(seconds(found.interval)),
            "baseEjectionTime": duration(seconds(found.base_ejection_time)),
            "maxEjectionPercent": found.max_ejection_percent,
        }
    }
