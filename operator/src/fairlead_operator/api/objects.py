"""ModelDeployments as the Kubernetes API gives them, read as strictly as manifests are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from fairlead_operator.api.complaints import Field, first_complaint, spelled
from fairlead_operator.api.v1alpha1 import GROUP, ModelDeployment, Status
from fairlead_operator.errors import ManifestError

SCHEMES = ("s3://", "gs://", "https://", "http://", "pvc://")
"""What the address of a model begins with in a cluster."""


def from_object(given: Mapping[str, Any]) -> ModelDeployment:
    """Return the ModelDeployment that an API object is.

    Of its metadata only what Fairlead reads is kept: name, namespace, generation, and labels and annotations of
    Fairlead's own group. A status that this version cannot read counts as none: it is a report, and is written anew.

    Args:
        given: The object as decoded JSON; nothing is assumed of it, since an older schema may have let it in.

    Raises:
        ManifestError: Its spec breaks a rule; the condition is ``InvalidSpec`` and the message names field and fix.
    """
    metadata = given.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    source = f"{metadata.get('namespace', 'default')}/{metadata.get('name', '')}"
    trimmed = {
        **{key: value for key, value in given.items() if key in {"apiVersion", "kind", "spec"}},
        "metadata": _trimmed(metadata),
        "status": _readable(given.get("status")),
    }
    try:
        deployment = ModelDeployment.model_validate_json(json.dumps(trimmed, default=str))
    except ValidationError as error:
        raise _refusal(source, *first_complaint(error)) from error
    _refuse_one_machine(deployment, source)
    return deployment


def _trimmed(metadata: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: metadata[key] for key in ("name", "namespace", "generation") if key in metadata}
    return kept | {key: _own(metadata.get(key)) for key in ("labels", "annotations")}


def _own(texts: Any) -> dict[str, str]:
    """Return the labels or annotations of Fairlead's group."""
    if not isinstance(texts, Mapping):
        return {}
    return {key: str(value) for key, value in texts.items() if key.startswith(f"{GROUP}/")}


def _readable(status: Any) -> Any:
    """Return ``status`` if this version can read it, else None."""
    try:
        Status.model_validate_json(json.dumps(status, default=str))
    except ValidationError:
        return None
    return status


def _refuse_one_machine(deployment: ModelDeployment, source: str) -> None:
    """Check what a manifest may have on one machine and must not have in a cluster.

    Raises:
        ManifestError: It has.
    """
    if deployment.spec.feature_store.path is not None:
        message = "is for one machine (fairlead up); in a cluster give configMapRef or featureStoreRef instead"
        raise _refusal(source, ("spec", "featureStore", "path"), message)
    for index, variant in enumerate(deployment.spec.variants):
        field: Field = ("spec", "variants", index, "model")
        if not variant.model.uri.startswith(SCHEMES):
            message = "is for one machine; put the file into a store and give its address: " + ", ".join(SCHEMES)
            raise _refusal(source, (*field, "uri"), message)
        if variant.model.uri.startswith("pvc://") and variant.model.storage is not None:
            raise _refusal(source, (*field, "storage"), "is for object stores; a pvc:// is mounted: remove storage")


def _refusal(source: str, field: Field, message: str) -> ManifestError:
    return ManifestError(source=source, line=None, field=spelled(field), message=message)
