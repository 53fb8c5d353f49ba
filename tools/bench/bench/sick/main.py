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
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from bench.paths import BENCH, BUILD, ROOT
from bench.sick import features, page
from bench.sick.scenarios import FAULT_S, SCENARIOS, Scenario
from bench.sick.verdict import Verdict, judge

_BEFORE_S, _AFTER_S = 2.0, 4.0
_NAMES = tuple(scenario.name for scenario in SCENARIOS)
_RESULT = BUILD / "sick-store.json"
_WIDTH = 160
_EXAMPLES = """examples:
  python tools/bench/sick_store.py                             all scenarios, four minutes
  python tools/bench/sick_store.py --only frozen,killed        two of them
  python tools/bench/sick_store.py --rate 200 --deadline-ms 50 on a busy machine
  python tools/bench/sick_store.py --write-docs                take the last run over into docs/performance-hydration.md

exit codes: 0 all bounds held, 1 some did not, 2 wrong arguments, 3 redis-server is missing"""


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write; return the exit code."""
    told = _arguments(arguments)
    console = Console(width=max(_WIDTH, shutil.get_terminal_size().columns))
    if told.write_docs:
        console.print(f"wrote {page.write(ROOT, _RESULT)}")
        return 0
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
    seen = {"about": about, "scenarios": [asdict(one) for one in verdicts]}
    _RESULT.write_text(json.dumps(seen, indent=1) + "\n")
    page.show(console, seen)
    console.print(f"written: {_RESULT}", highlight=False)
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
    parser.add_argument("--write-docs", action="store_true", help="take the last run over into docs")
    return parser.parse_args(arguments)


def _of_names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - set(_NAMES):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: none of {', '.join(_NAMES)}")
    return names
