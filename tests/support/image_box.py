"""Runs what is in an image's archive without a container runtime.

A root of its own that cannot be written, ``/tmp`` empty in memory, the image's user, environment and entry point.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_MOUNTS = """
set -e
root=$1; shift
mount --bind "$root" "$root"
mount --options remount,bind,ro "$root"
mount --types tmpfs --options mode=1777 tmpfs "$root/tmp"
mount --types proc proc "$root/proc"
mount --rbind /dev "$root/dev"
[ -z "$SHARED" ] || { mkdir "$root/tmp/shared"; mount --bind "$SHARED" "$root/tmp/shared"; }
unset SHARED
exec /usr/sbin/chroot "$@"
"""
SHARED = Path("/tmp/shared")  # noqa: S108 -- of the box
"""Where the box sees the folder that it shares."""


@dataclass(frozen=True, slots=True)
class Box:
    """An unpacked image."""

    root: Path
    config: Mapping[str, Any]
    """The ``config`` of the image's configuration."""

    def command(self, arguments: Sequence[str], *, entrypoint: Sequence[str] | None = None) -> list[str]:
        """Return the command that runs the image's entry point (or another) with ``arguments`` in it."""
        inside = [*(self.config.get("Entrypoint") or [] if entrypoint is None else entrypoint), *arguments]
        mounts = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", _MOUNTS, "sh", str(self.root)]
        return [*mounts, f"--userspec={self.config['User']}", "--groups=", str(self.root), *inside]

    def environment(self, extra: Mapping[str, str] | None = None, *, shared: Path | None = None) -> dict[str, str]:
        """Return the variables for :meth:`command`: the image's and ``extra``."""
        of_image = dict(line.split("=", 1) for line in self.config.get("Env", []))
        return {**of_image, **(extra or {}), "SHARED": str(shared or "")}

    def run(
        self,
        *arguments: str,
        entrypoint: Sequence[str] | None = None,
        shared: Path | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run something to its end and return what it said."""
        return subprocess.run(
            self.command(arguments, entrypoint=entrypoint),
            env=self.environment(extra, shared=shared),
            capture_output=True,
            text=True,
            check=False,
        )

    @contextmanager
    def started(
        self,
        *arguments: str,
        log: IO[bytes],
        entrypoint: Sequence[str] | None = None,
        shared: Path | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start something, and end it afterwards."""
        process = subprocess.Popen(
            self.command(arguments, entrypoint=entrypoint),
            env=self.environment(extra, shared=shared),
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def unpack(archive: Path, root: Path) -> Box:
    """Unpack an OCI archive of one image into an empty folder."""
    with tarfile.open(archive) as tar:

        def blob(digest: str) -> IO[bytes]:
            found = tar.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert found is not None
            return found

        index = tar.extractfile("index.json")
        assert index is not None
        manifest = json.load(blob(json.load(index)["manifests"][0]["digest"]))
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=blob(layer["digest"])) as content:
                content.extractall(root, filter="tar")
        config = json.load(blob(manifest["config"]["digest"]))["config"]
    root.chmod(root.stat().st_mode | 0o055)  # the image's user is another one
    return Box(root, config)
