"""The flights example's manifests, and what a pod sees of them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import yaml

from flights.cluster.manifests import CONFIG_MAP, FOLDER


def manifests() -> list[dict[str, Any]]:
    """Return every object of ``examples/flights/cluster``, in the order in which kubectl applies them."""
    texts = [path.read_text() for path in sorted(FOLDER.glob("*.yaml"))]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def manifest(kind: str, name: str) -> dict[str, Any]:
    """Return one of them."""
    (found,) = (one for one in manifests() if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def mount_feature_store(folder: Path) -> Path:
    """Write the files of the ConfigMap as pods see them."""
    found = manifest("ConfigMap", CONFIG_MAP)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in found["data"].items():
        (folder / name).write_text(text)
    for name, encoded in found["binaryData"].items():
        (folder / name).write_bytes(base64.b64decode(encoded))
    return folder
