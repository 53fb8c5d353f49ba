"""The last run as a table: on the terminal, and in ``docs/performance-hydration.md``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.sick.verdict import Verdict

PAGE = "docs/performance-hydration.md"
_MARK = re.compile(r"(<!-- sick:figures -->\n).*?(<!-- /sick -->)", re.DOTALL)
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
    "held": lambda one: "yes" if one.met else "no",
}


def show(console: Console, told: Mapping[str, Any]) -> None:
    """Print a run."""
    table = Table("scenario", title=_title(told["about"]))
    for name in _FIGURES:
        table.add_column(name, justify="right")
    verdicts = _verdicts(told)
    for one in verdicts:
        table.add_row(one.scenario, *(figure(one) for figure in _FIGURES.values()))
    console.print(table)
    for one in verdicts:
        for what in one.missed:
            console.print(f"[red]not held[/] {one.scenario}: {escape(what)}", highlight=False)


def write(root: Path, result: Path) -> str:
    """Take the last run over into the page; return its name."""
    told = json.loads(result.read_text())
    lines = [
        f"{_title(told['about'])}.",
        "",
        f"| scenario | {' | '.join(_FIGURES)} |",
        "|---" * (len(_FIGURES) + 1) + "|",
    ]
    lines += [
        f"| {one.scenario} | {' | '.join(figure(one) for figure in _FIGURES.values())} |" for one in _verdicts(told)
    ]
    text = "\n".join(lines) + "\n"
    page = root / PAGE
    page.write_text(_MARK.sub(lambda found: found[1] + text + found[2], page.read_text()))
    return PAGE


def _title(about: Mapping[str, Any]) -> str:
    return (
        f"{about['at'][:10]}, deadline {about['deadline_ms']:g} ms, {about['requests_per_s']:g} requests/s, "
        f"load average of the machine {about['load_average']:.1f}"
    )


def _verdicts(told: Mapping[str, Any]) -> Sequence[Verdict]:
    names = {field.name for field in fields(Verdict)}
    return [Verdict(**{name: value for name, value in one.items() if name in names}) for one in told["scenarios"]]
