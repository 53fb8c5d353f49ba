"""One run: what is missing is made, answers are checked, rounds measured, everything written."""

from __future__ import annotations

import json
import os
import platform
import signal
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnxruntime as ort
from rich.console import Console
from rich.markup import escape

from bench import contract, further, results
from bench.asking import Questions
from bench.cases import CASES, Case
from bench.components import missing
from bench.environments import NotInstalled
from bench.load import LoadFailed
from bench.model import asked, make
from bench.ours import Ledger, ledger
from bench.paths import BUILD, CACHE, ROOT
from bench.questions import WrongAnswer
from bench.results import records
from bench.servers import Given, NotStarted, end_leftovers
from bench.side_by_side import SideBySide
from bench.summary import tables
from bench.systems import SYSTEMS, System

MODEL = CACHE / "gb.onnx"
_FULL, _QUICK = (4, 2), (2, 1)
_HYDRATION_WITHIN_S = 600


def measure(only: Sequence[str], *, quick: bool, rounds: int | None, seconds: int | None) -> int:
    """Measure and write; return the exit code.

    Args:
        only: Names of the systems and cases to measure; empty for all.
        quick: Whether two short rounds are enough.
        rounds: Rounds, instead of the usual.
        seconds: Seconds of a round, instead of the usual.
    """
    console = Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every server is ended
    if lacking := missing():
        console.print(f"make bench: {lacking}", highlight=False)
        return 1
    end_leftovers()
    if not MODEL.exists():
        console.print("training the model (once)")
        make(MODEL)
    usual = _QUICK if quick else _FULL
    lasting = {"rounds": rounds or usual[0], "seconds": seconds or usual[1]}
    given = Given(MODEL, ROOT / "build/flights/models/boosted.onnx", ROOT / "feature_repo")
    questions = Questions(asked(MODEL), given)
    cases, systems = _chosen(only)
    besides: dict[str, Any] = {}
    with ledger() as reports:
        side = SideBySide(questions, given, reports, console)
        systems = _servable(systems, given, side)
        try:
            with side.running(systems, cases):
                side.run(**lasting)
                if not quick:
                    found = records(side.outcome.rounds)
                    _add(besides, "p99_at_half", console, lambda: further.p99_at_half(side.servers, questions, found))
                    _add(besides, "profile", console, lambda: further.profile(side.servers, questions))
            side.check_reports()
            if not only:
                _measure_hydration(console, quick=quick)
            if not quick and not only:
                _measure_besides(besides, console, questions, given, reports)
        finally:
            _write(side, reports, besides, {"quick": quick, **lasting})
    for table in tables(records(side.outcome.rounds), side.outcome.left_out):
        console.print(table)
    return 0


def _measure_besides(
    besides: dict[str, Any], console: Console, questions: Questions, given: Given, reports: Ledger
) -> None:
    _add(besides, "workers", console, lambda: further.workers(questions, given, reports))
    _add(besides, "coldstart", console, lambda: further.program("coldstart"))
    _add(besides, "beside", console, lambda: further.program("beside"))


def _measure_hydration(console: Console, *, quick: bool) -> None:
    console.print("besides: hydration", highlight=False)
    if further.program("hydration", *(["--quick"] if quick else []), within_s=_HYDRATION_WITHIN_S) is None:
        console.print("[bold red]hydration is out:[/] see `python tools/bench/hydration.py`", highlight=False)


def _add(
    besides: dict[str, Any], name: str, console: Console, measured: Callable[[], Mapping[str, Any] | None]
) -> None:
    console.print(f"besides: {name}", highlight=False)
    try:
        found = measured()
    except (LoadFailed, NotInstalled, NotStarted, WrongAnswer) as error:
        console.print(f"[bold red]{name} is out:[/] {escape(str(error))}", highlight=False)
    else:
        if found is not None:
            besides[name] = found
            console.print(f"  {escape(str(found))}", highlight=False)


def _chosen(only: Sequence[str]) -> tuple[list[Case], list[System]]:
    cases = [case for case in CASES if case.name in only] or list(CASES)
    systems = [system for system in SYSTEMS if system.name in only] or list(SYSTEMS)
    protocols = {case.protocol for case in cases}
    return cases, [system for system in systems if protocols & set(system.protocols)]


def _servable(systems: Sequence[System], given: Given, side: SideBySide) -> list[System]:
    lacking = contract.missing(given.contract, given.store)
    if lacking is None:
        return list(systems)
    side.outcome.left_out |= {one.label: lacking for one in systems if one.label != one.name}
    return [one for one in systems if one.label == one.name]


def _write(side: SideBySide, reports: Ledger, besides: Mapping[str, Any], how: Mapping[str, Any]) -> None:
    outcome = side.outcome
    results.write(BUILD / "server.json", records(outcome.rounds))
    (BUILD / "further.json").write_text(json.dumps(besides, indent=1) + "\n")
    meta = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        **how,
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "onnxruntime": ort.__version__,
        "others": round(statistics.median([one.others for one in outcome.rounds] or [0.0]), 3),
        "left_out": outcome.left_out,
        "rss_mib": outcome.rss_mib,
        "ledger": {label: asdict(heard) for label, heard in reports.heard.items()},
        "measured": [asdict(one) for one in outcome.rounds],
    }
    (BUILD / "server.meta.json").write_text(json.dumps(meta, indent=1) + "\n")


def cpu_model() -> str:
    """Return what the kernel calls the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
