"""Images that containerd is given: the released ones, as ``tools/images`` makes them, or those of the host's folders.

An archive is known by its image's digest, so that nothing is imported twice.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from errors import ClusterError
from host import ROOT

_TOOL = ROOT / "tools/images"


@dataclass(frozen=True, slots=True)
class Archive:
    """An image as an OCI archive."""

    path: Path
    names: tuple[str, ...]
    """What the image is called, by tag."""
    digest: str
    """Of its manifest: ``sha256:…``."""


def build() -> None:
    """Build the released images that the cache lacks.

    Raises:
        ClusterError: They cannot be built here.
    """
    if subprocess.run([sys.executable, str(_TOOL), "build"], cwd=ROOT, check=False).returncode:
        raise ClusterError("the images cannot be built, see above; `tools/images build`")


def listed() -> Mapping[str, Archive]:
    """Return the released images by component.

    Raises:
        ClusterError: They are not built.
    """
    command = [sys.executable, str(_TOOL), "list", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"tools/images list: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    return {name: read(Path(one["archive"]), (one["image"],)) for name, one in found.items()}


def read(path: Path, names: Iterable[str]) -> Archive:
    """Return an archive with its image's digest.

    Raises:
        ClusterError: It is not there, or is not one image.
    """
    try:
        with tarfile.open(path) as tar:
            index = tar.extractfile("index.json")
            manifests = json.load(index)["manifests"] if index else []
    except (OSError, KeyError, tarfile.TarError) as error:
        raise ClusterError(f"{path}: no OCI archive ({error}); `tools/images build`") from error
    digests = {manifest["digest"] for manifest in manifests}
    if len(digests) != 1:
        raise ClusterError(f"{path}: {len(digests)} images in it instead of one")
    return Archive(path, tuple(names), digests.pop())
