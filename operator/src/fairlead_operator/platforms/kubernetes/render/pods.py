"""What the containers of a predictor's pod share: paths, ports, and the restricted pod security standard."""

from __future__ import annotations

from typing import Final

from fairlead_operator.platforms.kubernetes.render.names import Manifest

MODEL_FORMAT: Final = "fairlead-onnx"
SERVER_CONTAINER: Final = "kserve-container"
"""KServe's name for the container that answers."""
FETCH_CONTAINER: Final = "storage-initializer"
"""KServe's name for the container that fetches; it reads its failures by that name and adds none of its own."""

HTTP_PORT: Final = 8080
HTTP_PORT_NAME: Final = "http-rest"
GRPC_PORT: Final = 8081
GRPC_PORT_NAME: Final = "grpc-oip"

SERVICE_HTTP_PORT: Final = 80
"""Of KServe's Service, which leads to ``HTTP_PORT``."""
SERVICE_GRPC_PORT: Final = 8081

MODELS_DIR: Final = "/mnt/models"
FEATURE_STORE_DIR: Final = "/etc/fairlead/feature-store"
SERVING_DIR: Final = "/etc/fairlead/serving"
STORAGE_DIR: Final = "/etc/fairlead/storage"
SCRATCH_DIR: Final = "/tmp"  # noqa: S108 -- an emptyDir of the pod's own

SCRATCH_VOLUME: Final = "scratch"

FETCH_COMMAND: Final = ("python", "-m", "fairlead_server.fetch")

_USER: Final = 1000


def pod_security() -> Manifest:
    """Return the pod's security context."""
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """Return a container's security context; whole by itself, as KServe adds containers to pods of others."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        **pod_security(),
    }


def scratch_mount() -> Manifest:
    """Return the mount of the pod's scratch space; the ServingRuntime brings the volume."""
    return {"name": SCRATCH_VOLUME, "mountPath": SCRATCH_DIR}


def environment(**values: str) -> list[Manifest]:
    """Return environment variables, sorted; a ``$`` stands for itself."""
    return [{"name": name, "value": literal(value)} for name, value in sorted(values.items())]


def literal(text: str) -> str:
    """Return ``text`` as an argument or variable in which Kubernetes expands no ``$(VARIABLE)``."""
    return text.replace("$", "$$")


def untemplated(text: str) -> str:
    """Return ``text`` for the server's container, which KServe reads as a Go template besides."""
    return literal(text).replace("{{", "{{`{{`}}")
