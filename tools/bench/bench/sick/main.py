"""The command: harm a store under load, scenario by scenario, and say what requests saw of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.paths import BENCH, BUILD
from bench.sick import features
from bench.sick.scenarios import FAULT_S, SCENARIOS, Scenario
from bench.sick.verdict import Verdict, judge

_BEFORE_S, _AFTER_S = 2.0, 4.0
_NAMES = tuple(scenario.name for scenario in SCENARIOS)
_RESULT = BUILD / "sick-store.json"
_FIGURES: Mapping[str, Callable[[Verdict], str]] = {
    "within +5 ms": lambda one: f"{one.within_soon:.3%}",
    "slowest over": lambda one: f"{one.worst_over_ms:+.1f} ms",
    "timer p99.9": lambda one: f"{one.timer_p999_ms:.1f} ms",
    "timer worst": lambda one: f"{one.timer_worst_ms:.1f} ms",
    "CPU": lambda one: f"{one.cpu_share:.0%}",
    "degraded": lambda one: f"{one.degraded_share_in_fault:.0%}",
    "wrong": lambda one: str(one.wrong),
    "unmarked": lambda one: str(one.unmarked + one.errors),
    "unanswered": lambda one: str(one.unanswered),
    "harmed for": lambda one: f"{one.fault_s:.1f} s",
    "well after": lambda one: f"{one.well_after_s:.2f} s",
    "later": lambda one: str(one.degraded_later),
    "held": lambda one: "yes" if one.met else "[red]no[/]",
}
_WIDTH = 160
_EXAMPLES = """examples:
  python tools/bench/sick_store.py                             all scenarios, three minutes
  python tools/bench/sick_store.py --only frozen,killed        two of them
  python tools/bench/sick_store.py --rate 200 --deadline-ms 50 on a busy machine

exit codes: 0 all bounds held, 1 some did not, 2 wrong arguments, 3 redis-server is missing"""


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write; return the exit code."""
    told = _arguments(arguments)
    console = Console(width=max(_WIDTH, shutil.get_terminal_size().columns))
    if shutil.which("redis-server") is None:
        console.print("redis-server is missing: apt-get install redis-server")
        return 3
    verdicts: list[Verdict] = []
    for scenario in SCENARIOS:
        if told.only and scenario.name not in told.only:
            continue
        console.print(f"{scenario.name}: {scenario.title} …", highlight=False)
        with tempfile.TemporaryDirectory() as folder:
            verdicts.append(asyncio.run(_measure(scenario, Path(folder), told.deadline_ms / 1000, told.rate)))
    BUILD.mkdir(parents=True, exist_ok=True)
    about = {
        "deadline_ms": told.deadline_ms,
        "requests_per_s": told.rate,
        "load_average": os.getloadavg()[0],
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    _RESULT.write_text(json.dumps({"about": about, "scenarios": [asdict(one) for one in verdicts]}, indent=1) + "\n")
    _tell(console, verdicts, told.deadline_ms, told.rate)
    return 0 if all(verdict.met for verdict in verdicts) else 1


async def _measure(scenario: Scenario, folder: Path, deadline_s: float, rate: float) -> Verdict:
    async with scenario.run(folder) as sick:
        await asyncio.to_thread(features.make, folder / "repo", sick.online_store)
        lasts_s = _BEFORE_S + FAULT_S + _AFTER_S
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.sick.load",
            *(str(one) for one in (folder / "repo", deadline_s, rate, lasts_s)),
            env=os.environ | {"PYTHONPATH": str(BENCH)},
            stdout=asyncio.subprocess.PIPE,
            limit=2**28,
        )
        try:
            assert process.stdout is not None  # noqa: S101 -- it is a pipe
            begins = await process.stdout.readline()
            if not begins.startswith(b"begins"):
                raise SystemExit(f"{scenario.name}: the load did not begin")
            # All processes of a machine share the monotonic clock.
            await asyncio.sleep(float(begins.split()[1]) + _BEFORE_S - time.monotonic())
            began_s = time.monotonic()
            await sick.harm()
            ended_s = time.monotonic()
            seen = json.loads(await process.stdout.read())
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
    return judge(
        scenario.name,
        seen["requests"],
        seen["timer"],
        deadline_s=deadline_s,
        cpu_share=seen["cpu_share"],
        fault=(began_s, ended_s),
    )


def _tell(console: Console, verdicts: Sequence[Verdict], deadline_ms: float, rate: float) -> None:
    table = Table(title=f"deadline {deadline_ms:g} ms, {rate:g} requests/s, latency from the moment each was due")
    table.add_column("scenario")
    for name in _FIGURES:
        table.add_column(name, justify="right")
    for one in verdicts:
        table.add_row(one.scenario, *(figure(one) for figure in _FIGURES.values()))
    console.print(table)
    for one in verdicts:
        for what in one.missed:
            console.print(f"[red]not held[/] {one.scenario}: {escape(what)}", highlight=False)
    console.print(f"written: {_RESULT}", highlight=False)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "tools/bench/sick_store.py",
        description="What requests see of an online store that is frozen, killed, cut off, moved or failed over.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", type=_of_names, default=(), metavar="SCENARIO,…", help=f"of {', '.join(_NAMES)}")
    parser.add_argument("--rate", type=float, default=1000, help="requests per second (1000)")
    parser.add_argument("--deadline-ms", type=float, default=20, help="of each request (20)")
    return parser.parse_args(arguments)


def _of_names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - set(_NAMES):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: none of {', '.join(_NAMES)}")
    return names
