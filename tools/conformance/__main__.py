"""Our readers beside Feast's own call on random data, at length: ``python tools/conformance --help``.

Every run is a process of its own with its own hash seed: Feast's order of columns depends on it, ours may not. Other
versions of Feast are run in environments of their own under ``build/conformance``, made by uv.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = ("tests", "sdk/src", "model_server/src")
NEEDED: Final = ("hypothesis", "onnx", "orjson", "prometheus-client", "pytest", "pyyaml")
"""What the comparison needs beside Feast and the SDK's dependencies."""
STORES: Final = ("redis", "redis-wide", "redis-through-feast", "sqlite")
"""Kinds of ``support.conformance``."""


class ConformanceError(Exception):
    """A run failed, or runs that must agree do not; the message names them."""


@dataclass(frozen=True, slots=True)
class Run:
    """One process."""

    python: Path
    store: str
    way: str
    hash_seed: int
    rows: int

    def compare(self) -> dict[str, Any]:
        """Run it and return what was compared.

        Raises:
            ConformanceError: Something differs from Feast, or the process failed.
        """
        began_s = time.perf_counter()
        ended = subprocess.run(
            [self.python, "-W", "ignore", "-m", "support.conformance", self.store, self.way, str(self.rows)],
            env=os.environ
            | {"PYTHONPATH": ":".join(str(ROOT / folder) for folder in FOLDERS), "PYTHONHASHSEED": str(self.hash_seed)},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            last = ended.stderr.strip().splitlines()[-1:] or ["no message"]
            raise ConformanceError(f"{self.store}, {self.way}, hash seed {self.hash_seed}: {last[0]}")
        found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        seconds = round(time.perf_counter() - began_s, 1)
        return {"store": self.store, "way": self.way, "hash_seed": self.hash_seed, "seconds": seconds} | found


def environment_of(minor: str) -> Path:
    """Return the interpreter of an environment with another Feast, made if it is not there yet.

    Raises:
        ConformanceError: It cannot be made.
    """
    folder = ROOT / "build/conformance" / f"feast-{minor}"
    python = folder / "bin/python"
    if not (folder / "complete").exists():
        sdk = tomllib.loads((ROOT / "sdk/pyproject.toml").read_text())["project"]["dependencies"]
        commands: Sequence[Sequence[str]] = (
            ("uv", "venv", "-q", "--clear", "--python", sys.executable, str(folder)),
            ("uv", "pip", "install", "-q", "-p", str(folder), f"feast[redis]=={minor}.*", *sdk, *NEEDED),
        )
        for command in commands:
            if subprocess.run(command, check=False).returncode:
                raise ConformanceError(f"no environment with feast {minor}: {' '.join(command[:3])} failed")
        (folder / "complete").touch()
    return python


def runs(arguments: argparse.Namespace) -> Iterator[Run]:
    """Yield the runs: this Feast under every seed, others under the first."""
    ways = {"written": arguments.rows, "materialized": arguments.materialized_rows}
    for seed in arguments.seeds:
        for store in STORES:
            yield from (Run(Path(sys.executable), store, way, seed, rows) for way, rows in ways.items())
    for minor in arguments.feast:
        python = environment_of(minor)
        for store in STORES:
            yield from (Run(python, store, way, arguments.seeds[0], rows) for way, rows in ways.items())


def check_same(found: Sequence[dict[str, Any]]) -> None:
    """Check that what was materialized is the same under every seed, from every store and Feast, in every column.

    Raises:
        ConformanceError: It is not.
    """
    for wide in (False, True):
        digests = {
            one["digest"] for one in found if one["way"] == "materialized" and (one["store"] == "redis-wide") is wide
        }
        if len(digests) > 1:
            raise ConformanceError("the same materialized rows are read in another order, or with other values")


def main() -> int:
    """Compare as the command line says, and return the exit code."""
    parser = argparse.ArgumentParser(prog="tools/conformance", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000, help="rows of each store (default: %(default)s)")
    parser.add_argument(
        "--materialized-rows", type=int, default=2000, help="rows through materialize() (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="values of PYTHONHASHSEED")
    parser.add_argument("--feast", nargs="*", default=[], metavar="MINOR", help="other versions, such as 0.66")
    parser.add_argument("--out", type=Path, default=ROOT / "build/conformance.json")
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    try:
        for run in runs(arguments):
            one = run.compare()
            found.append(one)
            shown = ", ".join(f"{state} {amount}" for state, amount in one["states"].items())
            print(
                f"feast {one['feast']} {one['store']} ({one['reader']}) {one['way']} seed {one['hash_seed']}: "
                f"{one['rows']} rows, {one['cells']} cells equal in {one['seconds']} s ({shown})",
                flush=True,
            )
            check_same(found)
            _write(arguments.out, found)
    except ConformanceError as error:
        print(f"not equal: {error}", file=sys.stderr)
        return 1
    print(f"wrote {arguments.out}")
    return 0


def _write(path: Path, found: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"runs": found}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
