"""buildah with a storage of its own, in a mount namespace of its own: when it ends, or is ended, no mount is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fairlead_images.programs import run

_PRIVATE = ("unshare", "--net", "--mount", "--propagation", "private", "--")


@dataclass(frozen=True, slots=True)
class Buildah:
    """buildah, told where its layers are."""

    storage: Path
    log: Path

    def build(
        self,
        context: Path,
        containerfile: Path,
        tag: str,
        *,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        mounts: Mapping[Path, str],
        timestamp_s: int,
    ) -> None:
        """Build an image.

        Args:
            context: Folder that the Containerfile copies from.
            containerfile: What to do.
            tag: Name of the image in the storage.
            arguments: Values of its ``ARG``.
            labels: Added to the image.
            mounts: Folders of this machine, read-only, by path; in build stages only.
            timestamp_s: Of the image and of every file in it: same inputs make the same layers.
        """
        options = [
            *("--isolation", "chroot", "--layers", "--pull-never", "--format", "oci"),
            *("--disable-compression", "--timestamp", str(timestamp_s), "--tag", tag, "--file", str(containerfile)),
            *(word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")),
            *(word for name, value in labels.items() for word in ("--label", f"{name}={value}")),
            *(word for path, inside in mounts.items() for word in ("--volume", f"{path}:{inside}:ro")),
        ]
        self._run("build", *options, str(context))

    def push(self, tag: str, folder: Path) -> None:
        """Write an image as an OCI layout, its layers not compressed."""
        self._run("push", "--quiet", "--disable-compression", tag, f"oci:{folder}:{tag}")

    def _run(self, command: str, *words: str) -> None:
        folders = ("--root", self.storage / "root", "--runroot", self.storage / "run")
        run([*_PRIVATE, "buildah", *folders, "--storage-driver", "overlay", command, *words], self.log)
