"""What must never be committed: part of `make check`.

Looks at tracked files only. Prints one line per finding, `FILE:LINE: what`, and ends with 1 if there is any.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LARGEST_BYTES = 1_000_000
FORBIDDEN = {
    "registry address": re.compile(
        r"https?://[^\s/]*(pypi|pythonhosted|npmjs|crates\.io|proxy\.golang|repo1?\.maven)[^\s]*"
    ),
    "index option": re.compile(r"^\s*--(extra-)?index-url\b"),
    "absolute path of a machine": re.compile(r"(?<![\w./-])/(work|root|home/\w+)/"),
}


def main() -> int:
    """Print findings; return the exit code."""
    root = Path(__file__).resolve().parent.parent
    found = [*_shadowing(root), *(f for path in _tracked(root) for f in _findings(root, path))]
    for line in found:
        print(line)
    return 1 if found else 0


def _tracked(root: Path) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True).stdout
    return [root / name for name in listed.split("\0") if name and (root / name).is_file()]


def _findings(root: Path, path: Path) -> Iterator[str]:
    name = path.relative_to(root)
    content = path.read_bytes()
    if len(content) > LARGEST_BYTES:
        yield f"{name}: {len(content)} bytes, more than {LARGEST_BYTES}"
    if name == Path("tools/tidy.py") or b"\0" in content:
        return
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        for what, pattern in FORBIDDEN.items():
            if pattern.search(line):
                yield f"{name}:{number}: {what}"


def _shadowing(root: Path) -> Iterator[str]:
    for name in ("__init__.py", "tests"):
        if (root / "operator" / name).exists():
            yield f"operator/{name}: a package here would hide the standard library's"


if __name__ == "__main__":
    sys.exit(main())
