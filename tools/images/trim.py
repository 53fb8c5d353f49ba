"""Finish a virtual environment for an image: ``trim.py IMAGE VENV``, in a build stage, by left_out.toml.

Removes what the image does not need, and debugging symbols where ``strip`` is installed; compiles what a start imports.
Writes what was removed to ``VENV/share/left-out.json``. Standard library only.
"""

from __future__ import annotations

import json
import py_compile
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_SYMBOLS = {"what": "debugging symbols", "why": "for debuggers; a traceback needs none"}
_LOADED = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
print("\\n".join(file for file in files if file.endswith(".py")))
"""
_LOADS = """
import ctypes, sys
for name in sys.argv[1:]:
    ctypes.CDLL(name)
"""


def remove(packages: Path, rules: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Remove all that the rules name; return what was removed, in bytes by rule."""
    removed = []
    for rule in rules:
        found = [path for pattern in rule["paths"] for path in packages.glob(pattern)]
        size_bytes = sum(_size_bytes(path) for path in found)
        for path in found:
            _remove(path)
        if size_bytes:
            removed.append({"what": rule["what"], "why": rule["why"], "bytes": size_bytes})
    return removed


def strip(packages: Path, python: Path) -> list[dict[str, Any]]:
    """Remove debugging symbols from libraries; return what was removed."""
    program = shutil.which("strip")
    if program is None:
        return []
    libraries = [path for path in packages.rglob("*.so*") if path.is_file() and _has_symbols(path)]
    before = sum(path.stat().st_size for path in libraries)
    for path in libraries:
        subprocess.run([program, "--strip-debug", path], check=True)
    subprocess.run([python, "-B", "-c", _LOADS, *libraries], check=True)
    return [{**_SYMBOLS, "bytes": before - sum(path.stat().st_size for path in libraries)}]


def _has_symbols(path: Path) -> bool:
    # In `.libs` are those that auditwheel has patched; stripping breaks them.
    is_patched = any(part.endswith(".libs") for part in path.parts)
    return not is_patched and not path.is_symlink() and b".debug_info" in path.read_bytes()


def precompile(venv: Path, modules: Sequence[str]) -> int:
    """Compile what importing ``modules`` loads; return how many files that were."""
    if not modules:
        return 0
    python = venv / "bin/python"
    loaded = subprocess.run(
        [python, "-B", "-c", _LOADED, *modules], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    files = [name for name in loaded.splitlines() if Path(name).is_relative_to(venv)]
    for name in files:
        # A build changes the files' times, and a file of an image never changes: neither time nor hash is looked at.
        py_compile.compile(name, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    return len(files)


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
    """Finish the environment of an image."""
    listed = tomllib.loads(Path(__file__).with_name("left_out.toml").read_text())
    packages = next(venv.glob("lib/python3*/site-packages"))
    removed = remove(packages, [rule for rule in listed["files"] if image in rule.get("images", [image])])
    removed += strip(packages, venv / "bin/python")
    for rule in listed["compiled"]:
        if image in rule["images"]:
            print(f"compiled {precompile(venv, rule['modules'])} modules")
    (venv / "share").mkdir(exist_ok=True)
    (venv / "share/left-out.json").write_text(json.dumps(removed, indent=1))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
