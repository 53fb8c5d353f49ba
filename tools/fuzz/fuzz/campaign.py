"""A whole run: each target inside a process of its own, then against servers; what was found, and the exit code."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fuzz import models
from fuzz.environment import atheris
from fuzz.findings import write
from fuzz.outside import Outcome, drive
from fuzz.paths import BUILD, FINDINGS, FUZZ, ROOT
from fuzz.worker import cpu_s, last_input

_INSIDE = 0.8
"""Share of a target's time inside a process, where thousands of inputs are fed in a second."""
_LOOK_S = 5.0
_SILENCE_CPU_S = 60.0
_MIB = 2**20
_SLACK_BYTES = 64 * _MIB
"""What a process may grow after the first tenth: libFuzzer keeps what reached new code."""
_EACH_S = 10.0


@dataclass(slots=True)
class Told:
    """What one way of driving one target came to."""

    target: str
    way: str
    inputs: int = 0
    seconds: float = 0.0
    early_bytes: int = 0
    resident_bytes: int = 0
    findings: list[str] = field(default_factory=list)


class _Progress:
    """One line that is written over, or one line now and then where nobody looks."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said_s = 0.0

    def say(self, told: Told) -> None:
        now_s = time.monotonic()
        line = (
            f"{told.target} {told.way}: {told.seconds:.0f} s, {told.inputs} inputs, {told.resident_bytes // _MIB} MiB, "
            f"{len(told.findings)} findings"
        )
        if self._console.is_terminal:
            self._console.print(f"\r\x1b[K{line}", end="", highlight=False)
        elif now_s - self._said_s > _EACH_S:
            self._said_s = now_s
            self._console.print(line, highlight=False)


def campaign(targets: Sequence[str], seconds: float, seed: int, *, ways: str) -> int:
    """Fuzz targets one after the other; return 1 if anything was found."""
    console = Console()
    guided = atheris() is not None
    console.print(
        "guided by coverage (atheris)" if guided else "unguided: no wheel of atheris fits here", highlight=False
    )
    models.write(BUILD / "models")
    progress = _Progress(console)
    results: list[Told] = []
    share = _INSIDE if ways == "both" else 1.0
    for target in targets:
        if ways != "server":
            results.append(_inside(target, seconds * share, seed, progress))
        if ways != "inside":
            results.append(_outside(target, seconds * (1 - share if ways == "both" else 1), seed, progress))
    (BUILD / "result.json").write_text(json.dumps([_row(one) for one in results], indent=1))
    _show(console, results)
    return 1 if any(one.findings for one in results) else 0


def _inside(target: str, seconds: float, seed: int, progress: _Progress) -> Told:
    told = Told(target, "inside")
    log = BUILD / f"{target}.log"
    command = [sys.executable, str(FUZZ), "inside", "--only", target, f"--seconds={seconds}", f"--seed={seed}"]
    with log.open("wb") as opened:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=opened, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "0"}
        )
    stdout = process.stdout
    if stdout is None:  # pragma: no cover -- it was asked for
        raise AssertionError("no pipe")
    is_silent = not _follow(process, stdout, told, progress)
    if is_silent:
        process.kill()
    code = process.wait()
    stdout.close()
    if is_silent or code:
        what = (
            f"it said nothing for {_SILENCE_CPU_S:g} s of its processor time" if is_silent else f"it ended with {code}"
        )
        told.findings.append(f"{what}: {write(target, last_input(target), what)}, and {log.relative_to(ROOT)}")
    if told.resident_bytes > told.early_bytes + _SLACK_BYTES:
        told.findings.append(f"memory grew from {told.early_bytes} to {told.resident_bytes} bytes")
    return told


def _follow(process: subprocess.Popen[bytes], stdout: IO[bytes], told: Told, progress: _Progress) -> bool:
    """Read what a worker tells until it ends; False if it falls silent although it runs."""
    heard_cpu_s = 0.0
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(_LOOK_S):
                # By processor time: on a busy machine a worker may wait for long, and be well.
                if process.poll() is None and cpu_s(process.pid) - heard_cpu_s > _SILENCE_CPU_S:
                    return False
                continue
            line = stdout.readline()
            if not line:
                return True
            if line.startswith(b"{"):
                heard_cpu_s = cpu_s(process.pid)
                for name, value in json.loads(line).items():
                    setattr(told, name, value)
                progress.say(told)


def _outside(target: str, seconds: float, seed: int, progress: _Progress) -> Told:
    told = Told(target, "server")
    started_s = time.monotonic()

    def take(outcome: Outcome) -> None:
        told.inputs, told.findings = outcome.inputs, outcome.findings
        told.early_bytes, told.resident_bytes = outcome.early_bytes, outcome.resident_bytes
        told.seconds = time.monotonic() - started_s
        progress.say(told)

    take(drive(target, seconds, seed, take))
    return told


def _row(told: Told) -> dict[str, Any]:
    return {name: getattr(told, name) for name in Told.__slots__}


def _show(console: Console, results: Sequence[Told]) -> None:
    table = Table("target", "way", "inputs", "seconds", "MiB after a tenth", "MiB at the end", "findings")
    for one in results:
        sizes = f"{one.early_bytes // _MIB}", f"{one.resident_bytes // _MIB}"
        table.add_row(one.target, one.way, f"{one.inputs}", f"{one.seconds:.0f}", *sizes, f"{len(one.findings)}")
    console.print()
    console.print(table)
    for one in results:
        for finding in one.findings:
            console.print(f"[bold red]{one.target}[/] ({one.way}): {escape(finding)}", highlight=False)
    if any(one.findings for one in results):
        console.print(f"inputs and how to replay them: {FINDINGS.relative_to(ROOT)}/TARGET", highlight=False)
