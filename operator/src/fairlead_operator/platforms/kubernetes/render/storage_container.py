"""The ClusterStorageContainer that lets InferenceServices name models with their digest."""

from __future__ import annotations

from fairlead_operator.platforms.kubernetes.kinds import CLUSTER_STORAGE_CONTAINER, OURS
from fairlead_operator.platforms.kubernetes.render.names import STORAGE_CONTAINER, Manifest
from fairlead_operator.platforms.kubernetes.render.pods import (
    FETCH_COMMAND,
    FETCH_CONTAINER,
    container_security,
    environment,
)

_SCHEMES = ("s3", "gs", "https", "http")


def storage_container(image: str) -> Manifest:
    """Return the ClusterStorageContainer for ``fairlead+SCHEME://PLACE@sha256:…``.

    KServe accepts no address that nothing supports. Our own pods bring their fetching container themselves, so this
    one runs only for InferenceServices that users write.

    Args:
        image: Image of the model server, whose ``fetch`` it runs.
    """
    return {
        "apiVersion": CLUSTER_STORAGE_CONTAINER.api_version,
        "kind": CLUSTER_STORAGE_CONTAINER.kind,
        "metadata": {"name": STORAGE_CONTAINER, "labels": dict(OURS)},
        "spec": {
            "container": {
                "name": FETCH_CONTAINER,
                "image": image,
                "command": list(FETCH_COMMAND),
                "env": environment(HOME="/mnt/models"),  # the one folder that it may write to
                "resources": {"limits": {"memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "256Mi"}},
                "securityContext": container_security(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
            },
            "supportedUriFormats": [{"prefix": f"fairlead+{scheme}://"} for scheme in _SCHEMES],
            "workloadType": "initContainer",
        },
    }
