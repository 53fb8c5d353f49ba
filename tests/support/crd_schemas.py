"""Schemas of KServe's and Istio's custom resources, trimmed to what we could write; and Kubernetes' own types.

The trimmed files are kept beside the tests, so that these need no cluster tools. ``FAIRLEAD_GOLDEN=write`` makes them
anew from the tools' cache, and where that is there the tests compare them with it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client

from support.kube.builtin import rooted
from support.kube.schema import faults, prune

KINDS = {
    "AuthorizationPolicy": "v1",
    "ClusterStorageContainer": "v1alpha1",
    "DestinationRule": "v1",
    "EnvoyFilter": "v1alpha3",
    "InferenceService": "v1beta1",
    "ServingRuntime": "v1alpha1",
    "VirtualService": "v1",
}
"""Version that we write, by kind."""

_FRAMEWORKS = {
    "huggingface",
    "lightgbm",
    "onnx",
    "paddle",
    "pmml",
    "pytorch",
    "sklearn",
    "tensorflow",
    "triton",
    "xgboost",
}
_LEFT_OUT = {*_FRAMEWORKS, "affinity", "autoScaling", "containers", "explainer", "transformer", "workerSpec"}
_UNREAD = {"description", "x-kubernetes-validations"}


def wrong_in(manifest: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """Return what a strict API server would have against ``manifest``: unknown fields and wrong values."""
    whole = rooted(schema)
    unknown = list(prune(json.loads(json.dumps(manifest)), whole))
    return [*unknown, *(str(fault) for fault in faults(manifest, whole))]


def trimmed(kind: str, tools: Path) -> dict[str, Any] | None:
    """Return the trimmed schema of ``kind`` from the tools' cache; None if it is not there."""
    for file in sorted([*tools.glob("kserve-*/manifests/crd/**/*.yaml"), *tools.glob("istio-*/manifests/crd.yaml")]):
        for document in yaml.load_all(file.read_bytes(), Loader=yaml.CSafeLoader):
            if document and document.get("spec", {}).get("names", {}).get("kind") == kind:
                schema = _version(document, KINDS[kind])
                kept = {name: part for name, part in schema["properties"].items() if name != "status"}
                found: dict[str, Any] = _trim({**schema, "properties": kept}, kind)
                return found
    return None


def tools_cache() -> Path:
    """Return the folder of the cluster's tools; it may not be there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fairlead/tools"


def wrong_type(value: Any, kind: str, path: str = "") -> Iterator[str]:
    """Yield where ``value`` is not what Kubernetes' own type ``kind`` is, by the client library's models."""
    listed, mapped = re.fullmatch(r"List\[(.+)\]", kind), re.fullmatch(r"Dict\[str, (.+)\]", kind)
    model = getattr(client, kind, None)
    if listed:
        if not isinstance(value, list):
            yield f"{path}: no list"
            return
        for index, item in enumerate(value):
            yield from wrong_type(item, listed[1], f"{path}[{index}]")
    elif mapped:
        for name, part in value.items():
            yield from wrong_type(part, mapped[1], f"{path}.{name}")
    elif model is not None:
        types = {model.attribute_map[name]: sort for name, sort in model.openapi_types.items()}
        for name, part in value.items():
            yield from wrong_type(part, types[name], f"{path}.{name}") if name in types else [f"{path}.{name}: unknown"]
    elif kind != "object" and not isinstance(value, {"str": str, "int": int, "bool": bool}.get(kind, str)):
        yield f"{path}: {value!r} is no {kind}"


def _version(document: dict[str, Any], version: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        entry["schema"]["openAPIV3Schema"] for entry in document["spec"]["versions"] if entry["name"] == version
    )
    return found


def _trim(schema: Any, kind: str) -> Any:
    if isinstance(schema, list):
        return [_trim(part, kind) for part in schema]
    if not isinstance(schema, dict):
        return schema
    left_out = _LEFT_OUT - ({"containers"} if kind == "ServingRuntime" else set())
    kept = {name: _trim(part, kind) for name, part in schema.items() if name not in {*_UNREAD, "properties"}}
    if "properties" in schema:
        kept["properties"] = {n: _trim(p, kind) for n, p in schema["properties"].items() if n not in left_out}
    return kept
