"""What of this machine a cluster uses: its folders, its cgroup hierarchies, and files that are written."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
CNI_PROGRAMS = Path("/usr/lib/cni")


def hierarchies() -> list[Path]:
    """Return the roots of this machine's cgroup hierarchies: one with version 2, several with version 1 or both."""
    lines = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return [Path(fields[1]) for fields in lines if fields[2] in ("cgroup", "cgroup2")]


def venv() -> Path:
    """Return the virtual environment that runs this, and that pods run from."""
    return Path(sys.prefix)


def sources() -> list[Path]:
    """Return the folders of the packages that are installed to be edited."""
    files = sorted(Path(sysconfig.get_path("purelib")).glob("_editable_impl_*.pth"))
    return [Path(line) for file in files for line in _lines(file)]


def mounted_folders() -> list[Path]:
    """Return what containers see of the host: programs, interpreter, packages, sources."""
    wanted = [Path("/usr"), Path(sys.base_prefix).resolve(), venv(), *sources()]
    folders = sorted({path.absolute() for path in wanted if path.is_dir()})
    return [path for path in folders if not any(path != other and path.is_relative_to(other) for other in folders)]


def write(path: Path, text: str) -> None:
    """Write a file, unless it is as it should be."""
    # kube-proxy ends when its settings are written again, even the same.
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _lines(file: Path) -> Iterator[str]:
    yield from (line.strip() for line in file.read_text().splitlines() if line.strip())
