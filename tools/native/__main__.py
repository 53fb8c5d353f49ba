"""The native gRPC engine (`model_server/native`): built once by cargo and maturin into a cache, then installed from it.

``python tools/native install`` builds what the cache lacks and installs it into this Python's environment; without
cargo it says so and leaves the engine that is Python. ``wheel FOLDER`` puts the wheel there, for images. ``check``
runs cargo's formatter, linter and tests. ``lock`` pins the newest crates that ``Cargo.toml`` allows.

What is committed of cargo's lock is ``locked.toml``: versions, checksums and dependencies of every crate, without the
address of a registry. A build puts in the one that this machine's cargo knows and lets cargo check the sums.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CRATE = ROOT / "model_server/native"
LOCKED = CRATE / "locked.toml"
_SOURCES = ("Cargo.toml", "pyproject.toml", "locked.toml", "src/*.rs")
_SOURCE = re.compile(r'^source = "(registry\+[^"]+)"\n', re.MULTILINE)
_CHECKSUM = re.compile(r"^checksum = ", re.MULTILINE)
_LINES = 25
_KEPT = 4
_HEAD = "# Every crate of the native engine, by `python tools/native lock`; cargo's lock without its registry.\n"


class NativeError(Exception):
    """Something does not work; the message says what to do."""


def main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit code."""
    try:
        match arguments:
            case ["install"]:
                return _install()
            case ["wheel", folder]:
                _put(_wheel(), ROOT / folder)
            case ["check"]:
                _check()
            case ["lock"]:
                _lock()
            case _:
                print("usage: python tools/native install|wheel FOLDER|check|lock", file=sys.stderr)
                return 2
    except NativeError as error:
        print(f"native: {error}", file=sys.stderr)
        return 1
    return 0


def _install() -> int:
    if shutil.which("cargo") is None:
        print("setup: no native gRPC engine: cargo is not here (the one in Python is used; install Rust for it)")
        return 0
    try:
        wheel = _wheel()
    except NativeError as error:
        print(f"setup: no native gRPC engine (the one in Python is used): {error}", file=sys.stderr)
        return 1 if os.environ.get("CI") or os.environ.get("FAIRLEAD_CI") else 0
    uv = shutil.which("uv")
    installer = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    quiet = ["--quiet", "--no-deps", "--no-index", "--force-reinstall"]
    _run([*installer, *quiet, str(wheel)], ROOT)
    print("setup: the native gRPC engine is there")
    return 0


def _wheel() -> Path:
    """Return the wheel of these sources, built if the cache lacks it."""
    if shutil.which("cargo") is None:
        raise NativeError("cargo is not on the PATH; install Rust 1.85 or newer")
    entry = _cache() / f"wheel-{_key()}"
    _cache().mkdir(parents=True, exist_ok=True)
    with _locked(_cache() / "lock"):
        if not entry.is_dir():
            print("setup: building the native gRPC engine (a minute)", flush=True)
            _build(entry)
            found = sorted(_cache().glob("wheel-*"), key=lambda path: path.stat().st_mtime, reverse=True)
            for old in found[_KEPT:]:
                shutil.rmtree(old)
    (wheel,) = entry.glob("*.whl")
    return wheel


def _build(entry: Path) -> None:
    with _checkout() as crate, tempfile.TemporaryDirectory(dir=entry.parent, prefix=".wheel-") as scratch:
        maturin = [sys.executable, "-m", "maturin", "build", "--release", "--locked", "--quiet"]
        _run([*maturin, "--interpreter", sys.executable, "--out", str(Path(scratch, "wheel"))], crate)
        Path(scratch, "wheel").rename(entry)


def _check() -> None:
    if shutil.which("cargo") is None:
        print("check: the native engine is not looked at: cargo is not here")
        return
    with _checkout() as crate:
        _run(["cargo", "fmt", "--check"], crate)
        lints = ["--quiet", "--locked", "--all-targets", "--all-features", "--", "--deny", "warnings"]
        _run(["cargo", "clippy", *lints], crate)
        _run(["cargo", "test", "--quiet", "--locked"], crate)


def _lock() -> None:
    with _checkout(locked=False) as crate:
        _run(["cargo", "generate-lockfile"], crate)
        LOCKED.write_text(_HEAD + _SOURCE.sub("", (crate / "Cargo.lock").read_text()))


@contextlib.contextmanager
def _checkout(*, locked: bool = True) -> Iterator[Path]:
    """Yield a copy of the crate with cargo's lock, so that nothing is written into the checkout."""
    if shutil.which("cargo") is None:
        raise NativeError("cargo is not on the PATH; install Rust 1.85 or newer")
    crate = _cache() / "crate"
    _cache().mkdir(parents=True, exist_ok=True)
    with _locked(_cache() / "crate.lock"):
        # Always the same folder: cargo tells by it what it has built before.
        shutil.copytree(CRATE, crate, dirs_exist_ok=True, ignore=shutil.ignore_patterns("target", "Cargo.lock"))
        for path in set((crate / "src").glob("*")) - {crate / "src" / path.name for path in (CRATE / "src").glob("*")}:
            path.unlink()
        if locked:
            pinned = LOCKED.read_text()
            (crate / "Cargo.lock").unlink(missing_ok=True)
            _run(["cargo", "generate-lockfile"], crate)
            known = _SOURCE.search((crate / "Cargo.lock").read_text())
            if known is None:
                raise NativeError("cargo's lock names no registry; is there a configuration that replaces it?")
            (crate / "Cargo.lock").write_text(_CHECKSUM.sub(f'source = "{known[1]}"\nchecksum = ', pinned))
        yield crate


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-_LINES:])
        raise NativeError(f"{' '.join(command[:4])} ended with {done.returncode}:\n{last}")


def _key() -> str:
    version = subprocess.run(["cargo", "--version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(version + platform.machine().encode() + platform.libc_ver()[1].encode())
    for path in sorted(path for pattern in _SOURCES for path in CRATE.glob(pattern)):
        digest.update(f"{path.relative_to(CRATE)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "fairlead/native"


def _put(wheel: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        if old.name != wheel.name:
            old.unlink()
    shutil.copy2(wheel, folder / wheel.name)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
