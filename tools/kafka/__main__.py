"""The Kafka broker that tests start: its jars, fetched once by Maven into a cache and checked by their hashes.

``python tools/kafka fetch`` gets them where Java and Maven are; elsewhere it says what is missing. ``python tools/kafka
where`` prints their folder. The folder's name is made of everything that decides its content.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUMS = HERE / "jars.sha256"
_LOG_LINES = 15


def main(arguments: list[str]) -> int:
    """Run one command; return the exit code."""
    match arguments:
        case ["where"]:
            print(folder())
            return 0 if folder().is_dir() else 1
        case ["fetch"]:
            return _fetched(folder())
        case _:
            print("usage: python tools/kafka fetch|where", file=sys.stderr)
            return 2


def folder() -> Path:
    """Return where the jars are, or will be."""
    home = os.environ.get("XDG_CACHE_HOME")
    cache = (Path(home) if home else Path.home() / ".cache") / "fairlead/tools"
    key = hashlib.sha256((HERE / "pom.xml").read_bytes() + SUMS.read_bytes()).hexdigest()[:16]
    return cache / f"kafka-{key}"


def _fetched(entry: Path) -> int:
    if entry.is_dir():
        print("setup: the Kafka broker for tests is there")
        return 0
    missing = [program for program in ("java", "mvn") if shutil.which(program) is None]
    if missing:
        print(f"setup: no Kafka broker for tests: {' and '.join(missing)} not here (tests that need it are skipped)")
        return 0
    entry.parent.mkdir(parents=True, exist_ok=True)
    with (entry.parent / ".kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return 0 if entry.is_dir() else _fetch(entry)


def _fetch(entry: Path) -> int:
    print("setup: fetching the Kafka broker for tests (50 MB)")
    staging = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
    try:
        command = ["mvn", "--batch-mode", "--quiet", "--file", str(HERE / "pom.xml"), "dependency:copy-dependencies"]
        given = ["-DincludeScope=runtime", f"-DoutputDirectory={staging}"]
        done = subprocess.run([*command, *given], capture_output=True, text=True, check=False)
        if done.returncode:
            last = "\n".join((done.stdout + done.stderr).splitlines()[-_LOG_LINES:])
            print(f"setup: Maven could not fetch the Kafka broker for tests:\n{last}", file=sys.stderr)
            return 1 if os.environ.get("CI") else 0
        if _sums(staging) != _pinned():
            print("setup: the Kafka broker's jars are not those of tools/kafka/jars.sha256", file=sys.stderr)
            return 1
        staging.chmod(0o755)
        staging.rename(entry)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return 0


def _sums(jars: Path) -> Mapping[str, str]:
    return {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in jars.glob("*.jar")}


def _pinned() -> Mapping[str, str]:
    lines = (line.split() for line in SUMS.read_text("utf-8").splitlines())
    return {name: digest for digest, name in lines}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
