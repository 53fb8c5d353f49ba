"""Remove from a virtual environment what an image does not need: ``trim.py IMAGE VENV``; see left_out.toml.

Runs in build stages, on the standard library. Writes what it removed to ``VENV/share/left-out.json``.
"""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from pathlib import Path


def trim(venv: Path, rules: list[dict[str, str]]) -> list[dict[str, str | int]]:
    """Remove all that the rules name; return what was removed, in bytes by rule."""
    packages = next(venv.glob("lib/python3*/site-packages"))
    removed: list[dict[str, str | int]] = []
    for rule in rules:
        found = [path for pattern in rule["paths"] for path in packages.glob(pattern)]
        size = sum(_size_bytes(path) for path in found)
        for path in found:
            _remove(path)
        removed.append({"what": rule["what"], "why": rule["why"], "bytes": size})
    return removed


def _size_bytes(path: Path) -> int:
    if path.is_symlink() or not path.exists():
        return 0
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file() and not one.is_symlink()]
    return sum(one.stat().st_size for one in files)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def main(image: str, venv: Path) -> None:
    """Trim and write the list."""
    listed = tomllib.loads(Path(__file__).with_name("left_out.toml").read_text())
    removed = trim(venv, [rule for rule in listed["files"] if image in rule.get("images", [image])])
    (venv / "share").mkdir(exist_ok=True)
    (venv / "share/left-out.json").write_text(json.dumps(removed, indent=1))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
