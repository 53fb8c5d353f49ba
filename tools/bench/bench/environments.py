"""One virtual environment for each peer, from pinned requirements, made when it is first needed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from bench.paths import CACHE, PEERS


class NotInstalled(Exception):
    """A peer, or a part of the bench, could not be had; the message says why."""


def python_of(peer: str) -> Path:
    """Return the Python of a peer's environment; make the environment if it is missing.

    It lives in ``${XDG_CACHE_HOME:-~/.cache}/fairlead/bench/<peer>-<key>``, the key being that of requirements and
    interpreter. Half an environment is never taken for one: the mark is written last.

    Raises:
        NotInstalled: The packages cannot be installed.
    """
    requirements = PEERS / peer / "requirements.txt"
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = CACHE / f"{peer}-{key}"
    if not (folder / "ready").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            _fill(folder, requirements)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", None) or str(error)
            raise NotInstalled(f"its packages were not installed: {said.strip().splitlines()[-1][:160]}") from error
        (folder / "ready").touch()
    return folder / "bin/python"


def _fill(folder: Path, requirements: Path) -> None:
    uv = shutil.which("uv")
    venv.create(folder, symlinks=True, with_pip=uv is None, clear=True)
    python = str(folder / "bin/python")
    install = [uv, "pip", "install", "--quiet", "--python", python] if uv else [python, "-m", "pip", "install", "-q"]
    wanted = ["--require-hashes", "-r", str(requirements)]
    subprocess.run([*install, *wanted], check=True, capture_output=True, text=True)
