"""The EnvoyFilter of a gateway, one for all deployments: it has requests logged that no server answered.

A change of it is a change of the gateway's listeners, whose connections Envoy then ends gracefully. So it never
changes: what differs between deployments is in their routes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from fairlead_operator.platforms.kubernetes.kinds import ENVOY_FILTER, GROUP, OURS
from fairlead_operator.platforms.kubernetes.render.names import Manifest
from fairlead_operator.platforms.kubernetes.unanswered.minutes import MARK
from fairlead_operator.platforms.unanswered import access_log

UNANSWERED_LABELS: Final = {**OURS, f"{GROUP}/part": "unanswered-log"}
"""Labels of all these filters."""

_MANAGER: Final = "envoy.filters.network.http_connection_manager"
_CONFIG: Final = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_STDOUT: Final = "/dev/stdout"
"""Where Istio's own access log is written, too: one file to Envoy, so that no two lines are mixed."""
_DIGITS: Final = 8


def unanswered_filter(namespace: str, selector: Mapping[str, str]) -> Manifest:
    """Return the EnvoyFilter of the gateway whose pods ``selector`` takes in ``namespace``."""
    chosen = ",".join(f"{name}={value}" for name, value in sorted(selector.items()))
    return {
        "apiVersion": ENVOY_FILTER.api_version,
        "kind": ENVOY_FILTER.kind,
        "metadata": {
            "name": f"fairlead-unanswered-{hashlib.sha256(chosen.encode()).hexdigest()[:_DIGITS]}",
            "namespace": namespace,
            "labels": dict(UNANSWERED_LABELS),
        },
        "spec": {
            "workloadSelector": {"labels": dict(selector)},
            "configPatches": [
                {
                    "applyTo": "NETWORK_FILTER",
                    "match": {"context": "GATEWAY", "listener": {"filterChain": {"filter": {"name": _MANAGER}}}},
                    "patch": {
                        "operation": "MERGE",
                        "value": {
                            "typed_config": {"@type": _CONFIG, "access_log": [access_log(_STDOUT, mark=MARK)]},
                        },
                    },
                }
            ],
        },
    }
