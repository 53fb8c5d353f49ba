"""The ServingRuntime of a server release: everything of the server's container that no revision changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fairlead_operator.platforms.kubernetes.kinds import OURS, SERVING_RUNTIME
from fairlead_operator.platforms.kubernetes.render.names import (
    IMAGE_ANNOTATION,
    RELEASE_LABEL,
    Manifest,
    Place,
    runtime_name,
)
from fairlead_operator.platforms.kubernetes.render.pods import (
    FEATURE_STORE_DIR,
    GRPC_PORT,
    GRPC_PORT_NAME,
    HTTP_PORT,
    HTTP_PORT_NAME,
    MODEL_FORMAT,
    SCRATCH_DIR,
    SCRATCH_VOLUME,
    SERVER_CONTAINER,
    SERVING_DIR,
    container_security,
    environment,
    scratch_mount,
)

_SCRATCH_SIZE = "256Mi"
_PRE_STOP_S = 5
"""How long a pod that is to end goes on accepting, while gateways learn that it is gone."""


def serving_runtime(place: Place, release: str, *, image: str | None = None) -> Manifest:
    """Return the ServingRuntime of ``release`` in the deployment's namespace.

    Deployments of a namespace share it, so none of them owns it: it goes when :func:`is_runtime_used` says that
    nobody uses it. Any change of it would roll the pods of all of them.

    Args:
        place: Where.
        release: Server release.
        image: The image of the live one (``image_of``), which stays; by the settings if there is none.
    """
    image = image or place.image(release)
    return {
        "apiVersion": SERVING_RUNTIME.api_version,
        "kind": SERVING_RUNTIME.kind,
        "metadata": {
            "name": runtime_name(release),
            "namespace": place.namespace,
            "labels": {**OURS, RELEASE_LABEL: release},
            "annotations": {IMAGE_ANNOTATION: image},
        },
        "spec": runtime_spec(image),
    }


def runtime_spec(image: str) -> Manifest:
    """Return the spec of the ServingRuntime that runs ``image``."""
    return {
        "annotations": {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(HTTP_PORT),
            "prometheus.io/path": "/metrics",
        },
        "supportedModelFormats": [{"name": MODEL_FORMAT, "version": "1", "autoSelect": False}],
        "protocolVersions": ["v1", "v2", "grpc-v2"],
        "containers": [_server(image)],
        "volumes": [{"name": SCRATCH_VOLUME, "emptyDir": {"sizeLimit": _SCRATCH_SIZE}}],
    }


def is_runtime_used(name: str, inference_services: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether some InferenceService of the namespace, ours or not, names the ServingRuntime ``name``.

    Args:
        name: Of the ServingRuntime.
        inference_services: All of the namespace, with at least ``spec.predictor.model.runtime``.
    """
    return any(
        (service.get("spec", {}).get("predictor", {}).get("model") or {}).get("runtime") == name
        for service in inference_services
    )


def _server(image: str) -> Manifest:
    return {
        "name": SERVER_CONTAINER,
        "image": image,
        "args": [
            "--host=0.0.0.0",
            f"--http-port={HTTP_PORT}",
            f"--grpc-port={GRPC_PORT}",
            f"--feature-store={FEATURE_STORE_DIR}",
            f"--serving-dir={SERVING_DIR}",
            f"--spool-dir={SCRATCH_DIR}/spool",
        ],
        "env": environment(HOME=SCRATCH_DIR),
        "ports": [
            {"name": HTTP_PORT_NAME, "containerPort": HTTP_PORT, "protocol": "TCP"},
            {"name": GRPC_PORT_NAME, "containerPort": GRPC_PORT, "protocol": "TCP"},
        ],
        # A refused model ends the process, so the startup probe only bounds how long imports may take.
        "startupProbe": _probe("live", period_s=1, failures=180),
        "readinessProbe": _probe("ready", period_s=2, failures=3),
        "livenessProbe": _probe("live", period_s=10, failures=6),
        "lifecycle": {"preStop": {"sleep": {"seconds": _PRE_STOP_S}}},
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [scratch_mount()],
    }


def _probe(what: str, *, period_s: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": f"/v2/health/{what}", "port": HTTP_PORT},
        "periodSeconds": period_s,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }
