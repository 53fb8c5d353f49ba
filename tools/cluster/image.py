"""Container images without an engine or a registry: a few links and files; everything else comes in as mounts.

The images hold no interpreter and no packages. The container runtime mounts the host's ``/usr``, the virtual
environment and this checkout into every container, read-only (see ``containerd.py``), so that pods run what was just
edited. The pod's manifest stays as it is in production: no host paths.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HOST_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
PAUSE = "fairlead.local/pause:dev"
"""The image that holds a pod's namespaces."""
USER = 1000
_FILES = {
    "etc/passwd": f"root:x:0:0::/root:/bin/sh\nfairlead:x:{USER}:{USER}::/tmp:/bin/sh\n",
    "etc/group": f"root:x:0:\nfairlead:x:{USER}:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
_SERVER_ENTRY = """#!/bin/sh
# What the released image does: "fetch URI FOLDER" fetches a model; anything else are arguments of the server.
if [ "${1:-}" = fetch ]; then
  shift
  exec python -m fairlead_server.fetch "$@"
fi
exec python -m fairlead_server "$@"
"""
_ENTRY_PATH = "opt/fairlead/entrypoint"


@dataclass(frozen=True, slots=True)
class Image:
    """An image of one layer."""

    names: tuple[str, ...]
    layer: bytes
    entrypoint: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""


def inside(path: Path) -> Path:
    """Return where containers see a folder of the host: where it is, unless pods have a volume over that."""
    hidden = path.is_relative_to("/tmp")  # noqa: S108  # of the pods
    return Path("/opt/fairlead/host", *path.parts[1:]) if hidden else path


def pause(program: Path) -> Image:
    """Return the image that holds a pod's namespaces."""
    return Image((PAUSE,), _layer({"pause": program.read_bytes()}, links={}), ("/pause",))


def server(venv: Path, sources: Sequence[Path], release: str) -> Image:
    """Return the image of the model server: under its development name, the release, and one to upgrade to."""
    names = tuple(f"fairlead.local/server:{tag}" for tag in ("dev", release, f"{release}-next"))
    environment = {
        "PATH": f"{inside(venv)}/bin:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": ":".join(str(inside(one)) for one in sources),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/tmp",  # noqa: S108 -- a volume of the pod
    }
    layer = _layer({_ENTRY_PATH: _SERVER_ENTRY.encode()}, links=HOST_LINKS)
    return Image(names, layer, (f"/{_ENTRY_PATH}",), environment, user=str(USER))


def host(name: str) -> Image:
    """Return an image for any program of the host."""
    return Image((name,), _layer({}, links=HOST_LINKS), (), {"PATH": "/usr/local/bin:/usr/bin:/bin"})


def write(image: Image, path: Path) -> None:
    """Write the image as an OCI archive that ``ctr images import`` takes."""
    blobs: dict[str, bytes] = {}

    def blob(content: bytes, media_type: str) -> dict[str, str | int]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    layer = blob(image.layer, "application/vnd.oci.image.layer.v1.tar")
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "config": {
            "Entrypoint": list(image.entrypoint),
            "Env": [f"{name}={value}" for name, value in image.environment.items()],
            "User": image.user,
        },
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [layer],
    }
    described = blob(json.dumps(manifest).encode(), str(manifest["mediaType"]))
    named = [{**described, "annotations": {"io.containerd.image.name": name}} for name in image.names]
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": named}).encode(),
        **{f"blobs/sha256/{digest}": content for digest, content in blobs.items()},
    }
    path.write_bytes(_tar(files, links={}))


def _layer(files: Mapping[str, bytes], *, links: Mapping[str, str]) -> bytes:
    return _tar({**{name: text.encode() for name, text in _FILES.items()}, **files}, links=links)


def _tar(files: Mapping[str, bytes], *, links: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("tmp", "usr", "root") if links else ():
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
