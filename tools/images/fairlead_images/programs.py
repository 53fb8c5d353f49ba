"""Running the programs that take part: what they say goes into a log, and into the message when they fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from fairlead_images.errors import BuildFailed, Unavailable

_LINES = 25
_PACKAGES = {"buildah": "buildah", "dpkg-deb": "dpkg", "apt-get": "apt", "unshare": "util-linux"}


def require(*programs: str) -> None:
    """Check that programs are there.

    Raises:
        Unavailable: One is not, or this is not root.
    """
    absent = [program for program in programs if not shutil.which(program)]
    if absent:
        packages = " ".join(sorted({_PACKAGES[program] for program in absent}))
        raise Unavailable(
            f"{', '.join(absent)}: not on the PATH; `make setup` installs it as root (Debian: {packages})"
        )
    if os.geteuid():
        raise Unavailable("building needs root, for the owners of files and for chroot; run it with sudo")


def run(command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run a program; its output is appended to ``log``.

    Raises:
        BuildFailed: It failed; the message has the last lines of its output.
    """
    words = [str(word) for word in command]
    with log.open("ab") as file:
        start = file.tell()
        variables = None if environment is None else {**os.environ, **environment}
        code = subprocess.run(words, stdout=file, stderr=file, env=variables, check=False).returncode
    if code:
        said = log.read_bytes()[start:].decode("utf-8", "replace").splitlines()[-_LINES:]
        raise BuildFailed("\n".join([f"{words[0]} ended with {code}; all it said is in {log}", *said]))
