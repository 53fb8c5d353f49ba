"""What everything that we make is called, how it is labelled and what owns it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from fairlead_operator.platforms.kubernetes.kinds import (
    DEPLOYMENT_LABEL,
    DEPLOYMENT_NAMESPACE_LABEL,
    GROUP,
    MANAGED_BY,
    MODEL_DEPLOYMENT,
    OURS,
    REVISION_LABEL,
    VARIANT_LABEL,
    Kind,
)

Manifest: TypeAlias = dict[str, Any]
"""An object as it is applied: only fields that we own."""

RELEASE_LABEL: Final = f"{GROUP}/release"
"""On a ServingRuntime: the server release that it runs."""

REVISION_ANNOTATION: Final = REVISION_LABEL
"""On an InferenceService; KServe copies it to the Deployment's pod template and the pods."""

PREDICTION_ANNOTATION: Final = f"{GROUP}/prediction"
"""On an InferenceService: hash of what decides its predictions, see ``Revision.prediction``."""

IMAGE_ANNOTATION: Final = f"{GROUP}/image"
"""On what has pods: the image it was made with, which stays however the operator's settings change."""

STORAGE_CONTAINER: Final = "fairlead-fetch"
"""Name of the one ClusterStorageContainer."""

_HOST_LABEL_MAX: Final = 63
_HOST_LABEL_EXTRA: Final = len("-predictor-")
_INFERENCE_SERVICE_MAX: Final = 46


@dataclass(frozen=True, slots=True)
class Place:
    """The ModelDeployment that is rendered for, and what the operator's settings say about the cluster."""

    namespace: str
    name: str
    uid: str
    server_image: str = "fairlead.local/server:{release}"
    """Image of the model server; ``{release}`` is filled in."""
    cluster_domain: str = "cluster.local"

    def image(self, release: str) -> str:
        """Return the image of ``release``."""
        return self.server_image.replace("{release}", release)

    @property
    def labels(self) -> dict[str, str]:
        """Labels of everything that belongs to this deployment."""
        return {**OURS, DEPLOYMENT_LABEL: self.name, DEPLOYMENT_NAMESPACE_LABEL: self.namespace}

    @property
    def owner(self) -> Manifest:
        """Return the reference that lets Kubernetes remove what this deployment owns, after it."""
        return {
            "apiVersion": MODEL_DEPLOYMENT.api_version,
            "kind": MODEL_DEPLOYMENT.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }

    @property
    def serving_name(self) -> str:
        """Return the name of the Secret and the ConfigMap that running servers read."""
        return f"{self.name}-serving"

    @property
    def foreign_name(self) -> str:
        """Return the name of what stands in another namespace; a dot, so that no two deployments share one."""
        return foreign_name(self.namespace, self.name)

    def host(self, revision: str) -> str:
        """Return the host name of the Service that KServe makes for ``revision``."""
        return f"{revision}-predictor.{self.namespace}.svc.{self.cluster_domain}"


def foreign_name(namespace: str, name: str) -> str:
    """Return the name of what a deployment has in another namespace; see ``Place.foreign_name``."""
    return f"fairlead-{namespace}.{name}"


def runtime_name(release: str) -> str:
    """Return the name of the ServingRuntime of ``release``; two releases never share one."""
    return f"fairlead-{release.replace('-', '--').replace('.', '-')}"


def name_too_long(namespace: str, revision: str) -> str | None:
    """Return why KServe cannot make host names for ``revision`` in ``namespace``; None if it can.

    KServe makes the host label ``<revision>-predictor-<namespace>`` and the label value ``isvc.<revision>-predictor``,
    and checks neither at admission.
    """
    room = min(_INFERENCE_SERVICE_MAX, _HOST_LABEL_MAX - _HOST_LABEL_EXTRA - len(namespace))
    if len(revision) <= room:
        return None
    return (
        f"{revision} has {len(revision)} letters, {room} fit in namespace {namespace}; "
        "choose a shorter name for the deployment, the variant or the namespace"
    )


def owned(
    kind: Kind,
    place: Place,
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """Return the head of an object in the deployment's namespace, owned by the deployment."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {
            "name": name,
            "namespace": place.namespace,
            "labels": {**place.labels, **(labels or {})},
            **({"annotations": dict(annotations)} if annotations else {}),
            "ownerReferences": [place.owner],
        },
    }


def foreign(kind: Kind, place: Place, namespace: str, *, annotations: Mapping[str, str] | None = None) -> Manifest:
    """Return the head of an object in another namespace; nothing can own it, so it is found again by its labels."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {
            "name": place.foreign_name,
            "namespace": namespace,
            "labels": place.labels,
            **({"annotations": dict(annotations)} if annotations else {}),
        },
    }


def revision_labels(variant: str, revision: str) -> dict[str, str]:
    """Return the labels of what belongs to one revision."""
    return {VARIANT_LABEL: variant, REVISION_LABEL: revision}


def image_of(live: Mapping[str, Any]) -> str | None:
    """Return the image that a ServingRuntime or InferenceService was made with; None if it does not say."""
    image = (live.get("metadata", {}).get("annotations") or {}).get(IMAGE_ANNOTATION)
    return image if isinstance(image, str) and image else None


__all__ = [
    "DEPLOYMENT_LABEL",
    "DEPLOYMENT_NAMESPACE_LABEL",
    "IMAGE_ANNOTATION",
    "MANAGED_BY",
    "OURS",
    "PREDICTION_ANNOTATION",
    "RELEASE_LABEL",
    "REVISION_ANNOTATION",
    "REVISION_LABEL",
    "STORAGE_CONTAINER",
    "VARIANT_LABEL",
    "Manifest",
    "Place",
    "foreign",
    "image_of",
    "name_too_long",
    "owned",
    "revision_labels",
    "runtime_name",
]
