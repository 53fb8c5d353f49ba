"""The wheelhouse: wheels of all pinned versions, downloaded by pip and checked against their hashes.

A build mounts it and asks no index, so that it needs no network and no address of one gets into an image.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from fairlead_images.errors import Unavailable
from fairlead_images.programs import run

PYTHON = "3.11"
"""Of the images."""
_GLIBC_MINOR = 36
"""Of Debian 12, as of the newest manylinux tag that it can use."""


def download(requirements: Path, wheels: Path, log: Path) -> None:
    """Download what a file of pinned requirements names; what is there already is checked and kept."""
    wheels.mkdir(parents=True, exist_ok=True)
    done = wheels / f".{requirements.stem}-{hashlib.sha256(requirements.read_bytes()).hexdigest()}"
    if done.exists():
        return
    command: list[str | Path] = [
        *_pip(),
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--requirement",
        requirements,
    ]
    run([*command, "--dest", wheels, "--find-links", wheels, *_target()], log)
    done.touch()


def _target() -> Iterable[str]:
    machine = platform.machine()
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(_GLIBC_MINOR, 4, -1)]
    for tag in [*tags, f"manylinux2014_{machine}", f"manylinux1_{machine}", f"linux_{machine}"]:
        yield from ("--platform", tag)
    yield from (
        "--python-version",
        PYTHON,
        "--implementation",
        "cp",
        "--abi",
        "cp311",
        "--abi",
        "abi3",
        "--abi",
        "none",
    )


def _pip() -> list[str]:
    for python in (sys.executable, str(Path(sys.base_prefix, "bin/python3"))):
        command = [python, "-m", "pip", "--disable-pip-version-check"]
        if not subprocess.run([*command, "--version"], capture_output=True, check=False).returncode:
            return command
    raise Unavailable(f"{sys.executable} has no pip, which downloads the wheels; install it (Debian: python3-pip)")
