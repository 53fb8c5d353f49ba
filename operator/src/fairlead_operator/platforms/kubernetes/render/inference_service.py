"""The InferenceService of a revision: made once, then edited in its replica bounds alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from fairlead_operator.api.v1alpha1 import FeatureStore, Storage
from fairlead_operator.core.desired import Revision
from fairlead_operator.platforms.kubernetes.kinds import INFERENCE_SERVICE
from fairlead_operator.platforms.kubernetes.render.names import (
    IMAGE_ANNOTATION,
    PREDICTION_ANNOTATION,
    REVISION_ANNOTATION,
    REVISION_LABEL,
    Manifest,
    Place,
    owned,
    revision_labels,
    runtime_name,
)
from fairlead_operator.platforms.kubernetes.render.pods import (
    FEATURE_STORE_DIR,
    FETCH_COMMAND,
    FETCH_CONTAINER,
    MODEL_FORMAT,
    MODELS_DIR,
    SCRATCH_DIR,
    SERVING_DIR,
    STORAGE_DIR,
    container_security,
    environment,
    literal,
    pod_security,
    scratch_mount,
    untemplated,
)
from fairlead_operator.platforms.kubernetes.render.serving_runtime import runtime_spec

_PVC: Final = "pvc://"
_GOOGLE: Final = "gs://"
_FILE_NAME: Final = "model.onnx"
_GOOGLE_KEY_FILE: Final = "gcloud-application-credentials.json"
"""Key of a Secret with Google's credentials; KServe's own name for it."""
_MODEL_VOLUME: Final = "model"
_MODEL_SIZE: Final = "4Gi"
"""Twice the largest file that is fetched: a file is written beside the one it replaces."""
_FEATURE_STORE_VOLUME: Final = "feature-store"
_SERVING_VOLUME: Final = "serving"
_STORAGE_VOLUME: Final = "storage"
_TERMINATION_GRACE_S: Final = 45
"""Longer than the preStop pause and the server's drain together."""


def inference_service(
    place: Place,
    revision: Revision,
    *,
    min_replicas: int,
    max_replicas: int,
    cpu_percent: int,
    image: str | None = None,
    feature_store: str | None = None,
) -> Manifest:
    """Return the InferenceService of ``revision``.

    Labels and annotations are those of its birth: KServe copies them to the pods, so any change rolls these.

    Args:
        place: Where.
        revision: What.
        min_replicas: Fewest pods, at least 1.
        max_replicas: Most pods.
        cpu_percent: Mean CPU use that the autoscaler keeps up, per cent of requests.
        image: The image of the live one (``image_of``), which stays; by the settings if there is none.
        feature_store: ConfigMap with ``feature_store.yaml``; what the revision says if left out.
    """
    image = image or place.image(revision.release)
    manifest = owned(
        INFERENCE_SERVICE,
        place,
        revision.name,
        labels={**revision_labels(revision.variant, revision.name), **_BIRTH_LABELS},
        annotations={
            **_BIRTH_ANNOTATIONS,
            REVISION_ANNOTATION: revision.name,
            PREDICTION_ANNOTATION: revision.prediction,
            IMAGE_ANNOTATION: image,
        },
    )
    manifest["spec"] = {
        "predictor": {
            "minReplicas": min_replicas,
            "maxReplicas": max_replicas,
            "scaleMetric": "cpu",
            "scaleTarget": cpu_percent,
            **_predictor(place, revision, image, feature_store),
        }
    }
    return manifest


def pod_identity(revision: Revision) -> Manifest:
    """Return what of the rendering makes a revision another one: all of its pods, but for names and the registry.

    It is part of the revision's hash. For a release that was ever shipped it must not change with the operator, or
    the upgrade rolls every model: golden files hold it, and what a later operator renders otherwise it renders so
    for later releases only.
    """
    place = Place(namespace="", name="", uid="")
    unnamed = replace(revision, name="")
    return {
        "labels": _BIRTH_LABELS,
        "annotations": _BIRTH_ANNOTATIONS,
        "predictor": _predictor(place, unnamed, revision.release, "feature-store"),
        "runtime": runtime_spec(revision.release),
    }


def client_config_map(feature_store: FeatureStore) -> str:
    """Return the ConfigMap with ``feature_store.yaml``: the one named, or what the Feast operator makes.

    Raises:
        ValueError: The store is a path, which only one machine has.
    """
    if feature_store.config_map_ref is not None:
        return feature_store.config_map_ref.name
    if feature_store.feature_store_ref is not None:
        return f"feast-{feature_store.feature_store_ref.name}-client"
    raise ValueError("featureStore.path is for one machine; in a cluster name a ConfigMap or a FeatureStore")


_BIRTH_LABELS: Final = {"networking.kserve.io/visibility": "cluster-local"}
_BIRTH_ANNOTATIONS: Final = {
    "serving.kserve.io/autoscalerClass": "hpa",
    "serving.kserve.io/deploymentMode": "Standard",
    # Else KServe's settings would decide, and point Prometheus at a port that we do not have.
    "serving.kserve.io/enable-metric-aggregation": "false",
    "serving.kserve.io/enable-prometheus-scraping": "false",
}


def _predictor(place: Place, revision: Revision, image: str, feature_store: str | None) -> Manifest:
    account = revision.model.service_account_name
    return {
        **({"serviceAccountName": account} if account else {}),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "terminationGracePeriodSeconds": _TERMINATION_GRACE_S,
        "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "topologySpreadConstraints": [
            _spread(revision, "kubernetes.io/hostname"),
            _spread(revision, "topology.kubernetes.io/zone"),
        ],
        **({"initContainers": [_fetcher(revision, image)]} if _is_fetched(revision) else {}),
        "volumes": list(_volumes(place, revision, feature_store or client_config_map(revision.feature_store))),
        "model": _model(revision),
    }


def _model(revision: Revision) -> Manifest:
    secret = revision.feature_store.secret_ref
    mounts = [_mount(_FEATURE_STORE_VOLUME, FEATURE_STORE_DIR), _mount(_SERVING_VOLUME, SERVING_DIR)]
    if _is_fetched(revision):
        mounts.append(_mount(_MODEL_VOLUME, MODELS_DIR))  # KServe itself mounts a claim
    return {
        "modelFormat": {"name": MODEL_FORMAT, "version": "1"},
        "runtime": runtime_name(revision.release),
        "protocolVersion": "v2",
        "storageUri": _storage_uri(revision),
        "args": [untemplated(argument) for argument in _arguments(revision)],
        **({"envFrom": [{"secretRef": {"name": secret.name}}]} if secret else {}),
        "resources": _resources(revision),
        "volumeMounts": mounts,
    }


def _arguments(revision: Revision) -> list[str]:
    hydration = json.dumps(revision.hydration.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return [
        f"--model={MODELS_DIR}/{_claimed_file(revision) if _is_claimed(revision) else _FILE_NAME}",
        f"--model-name={revision.model_name}",
        f"--model-digest={revision.model.digest}",
        f"--variant={revision.variant}",
        f"--revision={revision.name}",
        f"--hydration={hydration}",
    ]


def _fetcher(revision: Revision, image: str) -> Manifest:
    storage = revision.model.storage or Storage()
    google_key = storage.secret_ref if revision.model.uri.startswith(_GOOGLE) else None
    variables = {"HOME": SCRATCH_DIR}
    if storage.endpoint:
        variables["AWS_ENDPOINT_URL"] = storage.endpoint
    if storage.region:
        variables["AWS_REGION"] = storage.region
    if google_key:
        variables["GOOGLE_APPLICATION_CREDENTIALS"] = f"{STORAGE_DIR}/{_GOOGLE_KEY_FILE}"
    secret = None if google_key else storage.secret_ref
    if secret:
        # With keys given, asking a cloud's metadata address for others only costs time where there is no cloud.
        variables["AWS_EC2_METADATA_DISABLED"] = "true"
    return {
        "name": FETCH_CONTAINER,
        "image": image,
        "command": list(FETCH_COMMAND),
        "args": [literal(_storage_uri(revision)), MODELS_DIR],
        "env": environment(**variables),
        **({"envFrom": [{"secretRef": {"name": secret.name}}]} if secret else {}),
        "resources": _resources(revision),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": _MODEL_VOLUME, "mountPath": MODELS_DIR},
            scratch_mount(),
            *([_mount(_STORAGE_VOLUME, STORAGE_DIR)] if google_key else []),
        ],
    }


def _volumes(place: Place, revision: Revision, feature_store: str) -> list[Manifest]:
    serving = {"name": place.serving_name, "optional": True}
    volumes: list[Manifest] = [
        {"name": _FEATURE_STORE_VOLUME, "configMap": {"name": feature_store}},
        {"name": _SERVING_VOLUME, "projected": {"sources": [{"secret": serving}, {"configMap": dict(serving)}]}},
    ]
    if _is_fetched(revision):
        volumes.append({"name": _MODEL_VOLUME, "emptyDir": {"sizeLimit": _MODEL_SIZE}})
    storage = revision.model.storage
    if storage and storage.secret_ref and revision.model.uri.startswith(_GOOGLE):
        volumes.append({"name": _STORAGE_VOLUME, "secret": {"secretName": storage.secret_ref.name}})
    return volumes


def _storage_uri(revision: Revision) -> str:
    if _is_claimed(revision):
        # KServe mounts a folder of the claim; the file's name goes to the server.
        return revision.model.uri.rpartition("/")[0] if _claimed_path(revision) else revision.model.uri
    return f"fairlead+{revision.model.uri}@{revision.model.digest}"


def _is_claimed(revision: Revision) -> bool:
    return revision.model.uri.startswith(_PVC)


def _is_fetched(revision: Revision) -> bool:
    return not _is_claimed(revision)


def _claimed_path(revision: Revision) -> str:
    """Return what follows the claim's name, with its slash; empty if nothing does."""
    _, slash, path = revision.model.uri.removeprefix(_PVC).partition("/")
    return slash + path


def _claimed_file(revision: Revision) -> str:
    return _claimed_path(revision).rpartition("/")[2] or _FILE_NAME


def _resources(revision: Revision) -> Manifest:
    return {"limits": dict(revision.resources.limits), "requests": dict(revision.resources.requests)}


def _mount(volume: str, path: str) -> Manifest:
    return {"name": volume, "mountPath": path, "readOnly": True}


def _spread(revision: Revision, key: str) -> Manifest:
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {REVISION_LABEL: revision.name}},
    }
