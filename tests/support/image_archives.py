"""Small OCI archives, made by hand."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_archive(path: Path, layers: Sequence[Mapping[str, str]], config: Mapping[str, Any]) -> Path:
    """Write an archive of one image whose layers have the given files."""
    blobs: dict[str, bytes] = {}

    def blob(content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"digest": f"sha256:{digest}", "size": len(content)}

    manifest = {
        "config": blob(json.dumps({"config": config}).encode()),
        "layers": [blob(_tar({name: text.encode() for name, text in layer.items()})) for layer in layers],
    }
    index = {"manifests": [blob(json.dumps(manifest).encode())]}
    path.write_bytes(_tar({"index.json": json.dumps(index).encode(), **blobs}))
    return path


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
