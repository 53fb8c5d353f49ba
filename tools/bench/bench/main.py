"""The command line of ``make bench``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import onnxruntime as ort
from rich.console import Console

from bench import contract, results
from bench.asking import Questions
from bench.cases import CASES, Case
from bench.components import missing
from bench.model import asked, make
from bench.ours import ledger
from bench.paths import BUILD, CACHE, ROOT
from bench.results import records
from bench.servers import Given
from bench.side_by_side import Outcome, SideBySide
from bench.summary import tables
from bench.systems import SYSTEMS, System

MODEL = CACHE / "gb.onnx"
SERVER_JSON, META_JSON = BUILD / "server.json", BUILD / "server.meta.json"
_FULL, _QUICK = (5, 2.0), (2, 1.0)
_EXAMPLES = """examples:
  make bench                                          everything, a quarter of an hour
  make bench ARGS=--quick                             two short rounds
  make bench ARGS="--only fairlead,native,grpc-1x16"  some systems, some cases"""


def main(arguments: Sequence[str]) -> int:
    """Check answers, measure, print and write; return the exit code."""
    told = _arguments(arguments)
    console = Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every server is ended
    if lacking := missing():
        console.print(f"make bench: {lacking}", highlight=False)
        return 1
    if not MODEL.exists():
        console.print("training the model (once)")
        make(MODEL)
    cases, systems = _chosen(told.only)
    given = Given(MODEL, ROOT / "build/flights/models/boosted.onnx", ROOT / "feature_repo")
    rounds, seconds = _QUICK if told.quick else _FULL
    with ledger() as reports:
        side = SideBySide(Questions(asked(MODEL), given), given, reports, console)
        if lacking := contract.missing(given.contract, given.store):
            side.outcome.left_out |= {one.label: lacking for one in systems if one.label != one.name}
            systems = [one for one in systems if one.label == one.name]
        try:
            with side.running(systems):
                side.run(cases, rounds=told.rounds or rounds, seconds=told.seconds or seconds)
        finally:
            _write(side.outcome, reports.requests, quick=told.quick)
    for table in tables(records(side.outcome.rounds), side.outcome.left_out):
        console.print(table)
    return 0


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "make bench",
        description="Model servers side by side: CPU per request, answers checked first.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="two rounds of one second instead of five of two")
    parser.add_argument("--only", type=_names, default=(), metavar="NAME,…", help="systems and cases, others are left")
    parser.add_argument("--rounds", type=int, help="rounds of the main cases")
    parser.add_argument("--seconds", type=float, help="seconds of a round, whole ones")
    return parser.parse_args(arguments)


def _names(text: str) -> tuple[str, ...]:
    known = {case.name for case in CASES} | {system.name for system in SYSTEMS}
    names = tuple(text.split(","))
    if unknown := set(names) - known:
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: none of {', '.join(sorted(known))}")
    return names


def _chosen(only: Sequence[str]) -> tuple[list[Case], list[System]]:
    cases = [case for case in CASES if case.name in only] or list(CASES)
    systems = [system for system in SYSTEMS if system.name in only] or list(SYSTEMS)
    protocols = {case.protocol for case in cases}
    return cases, [system for system in systems if protocols & set(system.protocols)]


def _write(outcome: Outcome, reported: Mapping[str, int], *, quick: bool) -> None:
    results.write(SERVER_JSON, records(outcome.rounds))
    meta = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "onnxruntime": ort.__version__,
        "left_out": outcome.left_out,
        "rss_mib": outcome.rss_mib,
        "reported_to_ledger": reported,
        "rounds": [asdict(one) for one in outcome.rounds],
    }
    META_JSON.write_text(json.dumps(meta, indent=1) + "\n")


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
