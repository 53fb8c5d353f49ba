"""Programs that run in the independent packages' own environment."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "peers"
REQUIREMENTS = FOLDER / "requirements.txt"


def environment() -> Path:
    """Return the Python of ``${XDG_CACHE_HOME:-~/.cache}/fairlead/simulate/<key>/``; make it first if it is missing.

    The key is the requirements' and the interpreter's, so an environment is never changed, only made beside another.
    It is made elsewhere and then moved, so that of two who make it at once neither sees half of one.
    """
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "fairlead" / "simulate" / wanted
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{wanted}.", dir=folder.parent, ignore_cleanup_errors=True) as made:
            _fill(Path(made))
            with suppress(OSError):  # somebody else was first
                Path(made).rename(folder)
    return folder / "bin" / "python"


def _fill(folder: Path) -> None:
    venv.create(folder, symlinks=True, with_pip=shutil.which("uv") is None)
    install = _installer(folder / "bin" / "python")
    subprocess.run([*install, "--require-hashes", "-r", str(REQUIREMENTS)], check=True)


def _installer(python: Path) -> list[str]:
    uv = shutil.which("uv")
    if uv is None:
        return [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return [uv, "pip", "install", "--quiet", "--python", str(python)]


def ask(program: str, told: Any, *arguments: str) -> Any:
    """Run a program of `tools/simulate/peers`, telling it JSON; return the JSON that it answers, None for nothing."""
    answer = subprocess.run(
        [str(environment()), str(FOLDER / program), *arguments],
        input=json.dumps(told),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    return json.loads(answer) if answer else None
