"""The command: simulate what is not there yet, say what does not hold, write the pages.

Ends with 0 if every claim holds, 1 if one is broken, 2 if it was called wrongly.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from simulate.runner import Result, runs_of, simulate_all
from simulate.setting import Setting
from simulate.settings import SETTINGS
from simulate.telling.pages import write_pages

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "build/simulate"
PAGE = ROOT / "docs/experiments.md"
PLOTS = ROOT / "docs/experiments"


def main(arguments: Sequence[str]) -> int:
    """Do what is asked; return the exit code."""
    asked = _parser().parse_args(arguments)
    console = Console()
    chosen = [one for one in SETTINGS if not asked.only or any(part in one.name for part in asked.only)]
    if asked.list:
        for setting in chosen:
            console.print(f"{setting.name}  {setting.runs} runs  {setting.title}")
        return 0
    if not chosen:
        console.print(f"no setting's name contains {' or '.join(asked.only)}; --list names them")
        return 2
    if asked.what == "docs":
        write_pages(FOLDER, SETTINGS, PAGE, PLOTS)
        console.print(f"wrote {PAGE.relative_to(ROOT)} from {FOLDER.relative_to(ROOT)}")
        return 0
    return _run(chosen, asked, console)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "make simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: python tools/simulate --only ratio, then python tools/simulate docs",
    )
    parser.add_argument("what", nargs="?", choices=["run", "docs"], default="run", help="simulate, or write the pages")
    parser.add_argument("--only", action="append", metavar="TEXT", default=[], help="settings whose name contains that")
    parser.add_argument(
        "--share", type=float, default=1.0, metavar="0..1", help="of each setting's runs (judged with slack)"
    )
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="at once (default: 2)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where results are kept, and taken up again")
    parser.add_argument("--list", action="store_true", help="name the settings and end")
    return parser


def _run(chosen: Sequence[Setting], asked: argparse.Namespace, console: Console) -> int:
    total = sum(runs_of(setting, asked.share) for setting in chosen)
    broken: list[str] = []
    columns = (
        TextColumn("{task.description:<34.34}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=total)

        def advance(setting: Setting, runs: int) -> None:
            progress.update(task, advance=runs, description=setting.name)

        results = simulate_all(chosen, asked.folder, processes=asked.processes, share=asked.share, advance=advance)
        for result in results:
            progress.console.print(_line(result), highlight=False)
            broken += [f"{result['name']}: {claim}" for claim, holds in result["claims"].items() if not holds]
    for claim in broken:
        console.print(f"[red]broken[/red] {claim}", highlight=False)
    console.print(f"{len(chosen)} settings, {total} runs; {len(broken)} claims broken; results in {asked.folder}")
    return 1 if broken else 0


def _line(result: Result) -> str:
    claims = result["claims"]
    held = f"{sum(claims.values())} of {len(claims)} claims hold"
    return f"{result['name']}: {result['runs']} runs, {result['cpu_s']:.0f} s of CPU, {held}"
