"""OCI archives: one tar with an image's layers, which ``ctr images import``, podman and skopeo take."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

_INDEX = "index.json"


def write(layout: Path, name: str, archive: Path) -> None:
    """Write an OCI layout as an archive that brings the image's name along; same layout, same bytes.

    Args:
        layout: Folder with the index of one image.
        name: By which the importer is to know it, with its tag.
        archive: To write.
    """
    index = json.loads((layout / _INDEX).read_text())
    tag = name.rpartition(":")[2]
    for manifest in index["manifests"]:
        manifest["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag}
    (layout / _INDEX).write_text(json.dumps(index))
    with tarfile.open(archive, "w") as tar:
        for path in sorted(layout.rglob("*")):
            tar.add(path, path.relative_to(layout).as_posix(), recursive=False, filter=_plain)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry


def manifest(layout: Path) -> dict[str, Any]:
    """Return the manifest of a layout's image."""
    described = json.loads((layout / _INDEX).read_text())["manifests"][0]
    found: dict[str, Any] = json.loads(blob(layout, described["digest"]).read_text())
    return found


def blob(layout: Path, digest: str) -> Path:
    """Return the file of a layout's blob."""
    return layout / "blobs" / digest.replace(":", "/")
