"""What a soak came to: what must hold, a table, a plot, and the same for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.ours import Heard
from rich.table import Table

from soak.run import Outcome, Stretch

MOST_GROWTH = 0.05
_WARM_S = 20.0
_SLACK_DESCRIPTORS = 2
_MIB = 2**20
_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 860, 130, 70, 30, 50


def warm(stretches: Sequence[Stretch]) -> Sequence[Stretch]:
    """Return the stretches after warming up: without the first tenth of the time, and the first twenty seconds."""
    end_s = max(_WARM_S, stretches[-1].end_s / 10) if stretches else 0.0
    return [one for one in stretches if one.end_s > end_s] or stretches


def growth(stretches: Sequence[Stretch]) -> float:
    """Return by which share resident memory grew after warming up."""
    after = warm(stretches)
    return after[-1].resident_bytes / after[0].resident_bytes - 1 if after else 0.0


def failures(outcome: Outcome, heard: Heard, exit_code: int) -> list[str]:
    """Return what does not hold."""
    exposed = sum(count for kind, count in outcome.answered.items() if kind != "broken")
    held = {
        f"resident memory grew by {growth(outcome.stretches):.1%}": growth(outcome.stretches) < MOST_GROWTH,
        "there is no stretch of time to judge; soak for longer": bool(outcome.stretches),
        f"{outcome.unanswered} requests were never answered": not outcome.unanswered,
        f"open files: {outcome.descriptors_before} before, {outcome.descriptors_after} after": (
            outcome.descriptors_after <= outcome.descriptors_before + _SLACK_DESCRIPTORS
        ),
        f"{exposed} requests were exposed, the ledger heard of {heard.requests}": heard.requests == exposed,
        f"the server ended with {exit_code}": not exit_code,
    }
    told = [f"{what} ({count} times)" for what, count in outcome.problems.items()]
    return [*told, *(what for what, holds in held.items() if not holds)]


def table(outcome: Outcome) -> Table:
    """Return the stretches as a table."""
    shown = Table("until s", "requests/s", "p50 us", "p99 us", "p99.9 us", "RSS MiB", "open files", "of a core")
    for one in outcome.stretches:
        times = (f"{one.p50_us:,.0f}", f"{one.p99_us:,.0f}", f"{one.p999_us:,.0f}")
        seen = (f"{one.resident_bytes / _MIB:.1f}", f"{one.descriptors}", f"{one.cpu_share:.0%}")
        shown.add_row(f"{one.end_s:.0f}", f"{one.requests_per_s:,.0f}", *times, *seen)
    return shown


def write(folder: Path, outcome: Outcome, heard: Heard, failed: Sequence[str]) -> None:
    """Write ``soak.json`` and ``soak.svg``."""
    content = asdict(outcome) | {"heard": heard.requests, "failures": list(failed)}
    (folder / "soak.json").write_text(json.dumps(content, indent=1))
    (folder / "soak.svg").write_text(svg(outcome.stretches))


def svg(stretches: Sequence[Stretch]) -> str:
    """Return latency and memory over time."""
    panels = (
        ("p50 us", [one.p50_us for one in stretches]),
        ("p99 us", [one.p99_us for one in stretches]),
        ("resident MiB", [one.resident_bytes / _MIB for one in stretches]),
    )
    parts: list[str] = []
    for place, (title, values) in enumerate(panels):
        top = _TOP + place * (_HEIGHT + _GAP)
        most = max(values, default=1.0) * 1.1 or 1.0
        step = (_WIDTH - _LEFT) / max(len(values) - 1, 1)
        points = " ".join(
            f"{_LEFT + step * number:.1f},{top + _HEIGHT * (1 - value / most):.1f}"
            for number, value in enumerate(values)
        )
        parts += [
            f'<text x="0" y="{top - 8}" font-weight="bold">{title}</text>',
            f'<text x="{_LEFT - 8}" y="{top + 10}" text-anchor="end">{most:,.0f}</text>',
            f'<text x="{_LEFT - 8}" y="{top + _HEIGHT}" text-anchor="end">0</text>',
            f'<line x1="{_LEFT}" y1="{top + _HEIGHT}" x2="{_WIDTH}" y2="{top + _HEIGHT}" stroke="#8a8a8a"/>',
            f'<polyline points="{points}" fill="none" stroke="#1a7f64" stroke-width="2"/>',
        ]
    height = _TOP + len(panels) * (_HEIGHT + _GAP)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif"'
    return "\n".join([f'{head} font-size="13">', '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])
