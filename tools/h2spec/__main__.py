"""h2spec, which asks a server about every rule of HTTP/2: built once from pinned Go modules into a cache.

``python tools/h2spec fetch`` builds it where Go is; elsewhere it says what is missing. ``python tools/h2spec where``
prints the program's path. The folder's name is made of everything that decides its content.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "github.com/summerwind/h2spec/cmd/h2spec"
_LOG_LINES = 15


def main(arguments: list[str]) -> int:
    """Run one command; return the exit code."""
    match arguments:
        case ["where"]:
            print(program())
            return 0 if program().is_file() else 1
        case ["fetch"]:
            return _fetched(program().parent)
        case _:
            print("usage: python tools/h2spec fetch|where", file=sys.stderr)
            return 2


def program() -> Path:
    """Return where the program is, or will be."""
    home = os.environ.get("XDG_CACHE_HOME")
    cache = (Path(home) if home else Path.home() / ".cache") / "fairlead/tools"
    made_of = b"".join((HERE / name).read_bytes() for name in ("go.mod", "go.sum")) + platform.machine().encode()
    return cache / f"h2spec-{hashlib.sha256(made_of).hexdigest()[:16]}" / "h2spec"


def _fetched(entry: Path) -> int:
    if entry.is_dir():
        print("setup: h2spec is there")
        return 0
    if shutil.which("go") is None:
        print("setup: no h2spec: go is not here (the test that needs it is skipped)")
        return 0
    entry.parent.mkdir(parents=True, exist_ok=True)
    with (entry.parent / ".h2spec.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return 0 if entry.is_dir() else _build(entry)


def _build(entry: Path) -> int:
    staging = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
    try:
        command = [
            "go",
            "build",
            "-trimpath",
            "-buildvcs=false",
            "-mod=readonly",
            "-o",
            str(staging / "h2spec"),
            PACKAGE,
        ]
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
        if done.returncode:
            last = "\n".join((done.stdout + done.stderr).splitlines()[-_LOG_LINES:])
            print(f"setup: Go could not build h2spec:\n{last}", file=sys.stderr)
            return 1 if os.environ.get("CI") else 0
        staging.chmod(0o755)
        staging.rename(entry)
        print("setup: h2spec is built")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
