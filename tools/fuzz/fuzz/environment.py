"""Atheris, where a wheel of it fits this interpreter: in a folder of its own, from pinned requirements."""

from __future__ import annotations

import hashlib
import importlib
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from fuzz.paths import CACHE, REQUIREMENTS


def atheris() -> Any | None:
    """Return the module, installed if need be; None where it cannot be had.

    It lives in ``${XDG_CACHE_HOME:-~/.cache}/fairlead/fuzz/<key>``, the key being that of requirements and interpreter,
    and is found after everything else: nothing in it replaces a package of the project.
    """
    folder = CACHE / hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:16]
    try:
        if not folder.exists():
            _install(folder)
        sys.path.append(str(folder))
        return importlib.import_module("atheris")
    except (OSError, subprocess.CalledProcessError, ImportError):
        return None


def _install(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    uv = shutil.which("uv")
    install = (
        [uv, "pip", "install", "-q", "-p", sys.executable] if uv else [sys.executable, "-m", "pip", "install", "-q"]
    )
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as made:
        command = [*install, "--target", made, "--require-hashes", "--only-binary", ":all:", "-r", str(REQUIREMENTS)]
        subprocess.run(command, check=True, capture_output=True)
        with suppress(OSError):  # somebody else was first
            Path(made).rename(folder)
