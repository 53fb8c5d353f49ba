"""One target inside one process, for a while; tells what it does, a line of JSON each second."""

from __future__ import annotations

import json
import logging
import mmap
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz.environment import atheris
from fuzz.paths import BUILD, GROWN
from fuzz.targets import TARGETS, Target, kept

LARGEST_BYTES = 8192
_STATUS_S = 1.0
_CHANGES = (1, 1, 1, 2, 2, 4)
_LENGTH_BYTES = 4


class Worker:
    """Feeds inputs to one target."""

    def __init__(self, target: Target, seconds: float) -> None:
        """Load what is fed; this takes seconds, and more if it is instrumented."""
        # After the instrumentation, which sees what is imported from now on.
        from fuzz.findings import Findings  # noqa: PLC0415
        from fuzz.inside import run  # noqa: PLC0415
        from fuzz.rig import Rig  # noqa: PLC0415

        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._target = target
        self._rig = Rig(BUILD / "models")
        self._run = run
        self._findings = Findings(target.name, self._fails)
        self._seconds = seconds
        self._started_s = self._told_s = time.monotonic()
        self._inputs = 0
        self._early_bytes = 0
        self._current = _current_file(target.name)

    def one(self, data: bytes) -> None:
        """Feed one input, and note what it does that it should not."""
        data = data[:LARGEST_BYTES]
        self._current[: _LENGTH_BYTES + len(data)] = len(data).to_bytes(_LENGTH_BYTES, "big") + data
        error = self._fails(data)
        if error is not None:
            self._findings.note(data, error)
        self._inputs += 1
        now_s = time.monotonic()
        if now_s - self._told_s >= _STATUS_S:
            self._told_s = now_s
            self._tell(now_s - self._started_s)

    def changed(self, chance: random.Random, data: bytes) -> bytes:
        """Return another input, made of one."""
        for _ in range(chance.choice(_CHANGES)):
            data = self._target.mutate(chance, data)[:LARGEST_BYTES]
        return data

    def unguided(self, inputs: list[bytes], seed: int) -> None:
        """Feed changed inputs until time is up."""
        chance = random.Random(seed)
        for data in inputs:
            self.one(data)
        while time.monotonic() - self._started_s < self._seconds:
            self.one(self.changed(chance, chance.choice(inputs)))

    def close(self) -> None:
        """Tell for the last time."""
        self._tell(time.monotonic() - self._started_s)

    def _fails(self, data: bytes) -> BaseException | None:
        try:
            self._run(self._rig, self._target.name, data)
        except Exception as error:  # noqa: BLE001 -- this is what is looked for
            return error
        return None

    def _tell(self, spent_s: float) -> None:
        resident = resident_bytes(os.getpid())
        if spent_s < self._seconds / 10 or not self._early_bytes:
            self._early_bytes = resident
        told = {
            "seconds": round(spent_s, 1),
            "inputs": self._inputs,
            "findings": [f"{cause.kind} {cause.place} {cause.said}".strip() for cause in self._findings.causes],
            "early_bytes": self._early_bytes,
            "resident_bytes": resident,
        }
        # To the descriptor: libFuzzer has its own mind about Python's files.
        os.write(sys.stdout.fileno(), json.dumps(told).encode() + b"\n")


def work(name: str, seconds: float, seed: int) -> None:
    """Fuzz a target for some seconds; ends the process itself where atheris does."""
    target = TARGETS[name]
    guide = atheris()
    if guide is None:
        worker = Worker(target, seconds)
        worker.unguided(list(_inputs(name)), seed)
        worker.close()
        return
    _guided(guide, target, seconds, seed)


def _guided(guide: Any, target: Target, seconds: float, seed: int) -> None:
    with guide.instrument_imports(include=list(target.instrumented), enable_loader_override=False):
        worker = Worker(target, seconds)
    grown = GROWN / target.name
    grown.mkdir(parents=True, exist_ok=True)
    for place, data in enumerate(_inputs(target.name)):
        (grown / f"seed-{place}").write_bytes(data)

    def change(data: bytes, largest: int, number: int) -> bytes:
        chance = random.Random(number)
        if chance.random() < 0.3:
            made: bytes = guide.Mutate(data, largest)
            return made
        return worker.changed(chance, data)[:largest]

    raw = BUILD / "raw" / target.name
    raw.mkdir(parents=True, exist_ok=True)
    options = [
        *(f"-max_total_time={max(1, round(seconds))}", f"-max_len={LARGEST_BYTES}", f"-seed={seed}", "-timeout=30"),
        *("-rss_limit_mb=4096", f"-artifact_prefix={raw}/", "-print_final_stats=1", "-reload=0", "-len_control=0"),
    ]
    guide.Setup([sys.argv[0], *options, str(grown)], worker.one, custom_mutator=change, internal_libfuzzer=True)
    guide.Fuzz()


def _inputs(name: str) -> Iterator[bytes]:
    from fuzz import seeds  # noqa: PLC0415 -- it imports what is instrumented

    yield from seeds.of(name).values()
    yield from kept(name).values()


def resident_bytes(process: int) -> int:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def cpu_s(process: int) -> float:
    """Return the processor time that a process has used; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _current_file(name: str) -> mmap.mmap:
    """Return memory that outlives the process: the input that it died of."""
    file = current(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bytes(_LENGTH_BYTES + LARGEST_BYTES))
    with file.open("r+b") as opened:
        return mmap.mmap(opened.fileno(), 0)


def current(name: str) -> Path:
    """Return the file of the input that is being fed to a target."""
    return BUILD / f"{name}.current"


def last_input(name: str) -> bytes:
    """Return the input that was fed last."""
    content = current(name).read_bytes()
    return content[_LENGTH_BYTES : _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "big")]
