"""Writes what was measured into ``docs/performance.md``, and says whether the page still agrees with its data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.cases import CASES
from bench.goals import goals
from bench.plot import svg
from bench.results import Record
from bench.systems import SYSTEMS

PAGE, DATA, PLOT = "docs/performance.md", "docs/performance.json", "docs/performance.svg"
_MARK = re.compile(r"(<!-- bench:(\w+) -->\n).*?(<!-- /bench -->)", re.DOTALL)
_META = ("at", "quick", "cpu", "cpus", "python", "onnxruntime", "rounds", "seconds", "others", "left_out", "rss_mib")


def write(root: Path, build: Path) -> list[str]:
    """Take over the last run: data, page and plot; return what was written."""
    meta = json.loads((build / "server.meta.json").read_text())
    data = {
        "meta": {name: meta[name] for name in _META},
        "further": json.loads((build / "further.json").read_text()) if (build / "further.json").exists() else {},
        "records": json.loads((build / "server.json").read_text()),
    }
    (root / DATA).write_text(_dumped(data))
    for name, content in _generated(root).items():
        (root / name).write_text(content)
    return [DATA, *_generated(root)]


def differing(root: Path) -> list[str]:
    """Return the files that are not what the committed data make of them."""
    return [name for name, content in _generated(root).items() if (root / name).read_text() != content]


def _generated(root: Path) -> dict[str, str]:
    data = json.loads((root / DATA).read_text())
    records = [Record(**row) for row in data["records"]]
    parts = {
        "about": "\n".join(_about(data["meta"])),
        "goals": "\n".join(_goals(records, data["further"])),
        "systems": "\n".join(_systems(data["meta"])),
        "tables": "\n".join(_tables(records)),
        "profile": "\n".join(_profile(data["further"].get("profile", {}))),
    }
    page = _MARK.sub(lambda found: f"{found[1]}{parts[found[2]]}\n{found[3]}", (root / PAGE).read_text())
    return {PAGE: page, PLOT: svg(records)}


def _dumped(data: Mapping[str, Any]) -> str:
    rows = ",\n  ".join(json.dumps(row) for row in data["records"])
    head = json.dumps({name: value for name, value in data.items() if name != "records"}, indent=1)
    return f'{head[:-2]},\n "records": [\n  {rows}\n ]\n}}\n'


def _about(meta: Mapping[str, Any]) -> Iterator[str]:
    kind = "A quick run" if meta["quick"] else "A full run"
    yield (
        f"{kind} of {meta['at'][:10]}: {meta['cpus']} CPUs ({meta['cpu']}), CPython {meta['python']}, ONNX Runtime "
        f"{meta['onnxruntime']}; up to {meta['rounds']} rounds of {meta['seconds']:g} s for each row."
    )
    yield ""
    if meta["others"] > 0.15:  # noqa: PLR2004 -- as in bench.results
        yield (
            f"**Others worked on this machine meanwhile**: they took {meta['others']:.2f} of the two CPUs (median of "
            "all rounds). Rates and latencies are then theirs as much as the servers'; CPU per request is dearer for "
            "everybody, and most for those who use much memory. Read ratios with care."
        )
    else:
        yield f"Others took {meta['others']:.2f} of the two CPUs (median of all rounds)."


def _goals(records: Sequence[Record], further: Mapping[str, Any]) -> Iterator[str]:
    yield from _table("what", "goal", "measured", "met")
    for goal in goals(records, further):
        met = {True: "yes", False: "**no**", None: "not measured in this run"}[goal.met]
        yield f"| {goal.what} | {goal.goal} | {goal.measured} | {met} |"


def _systems(meta: Mapping[str, Any]) -> Iterator[str]:
    yield from _table("system", "what it is", "memory")
    for system in SYSTEMS:
        rss, why = meta["rss_mib"].get(system.label), meta["left_out"].get(system.label)
        memory = "not in this run" if rss is None else f"{rss:.0f} MiB"
        yield f"| {system.label} | {system.what} | {f'**left out**: {_cell(why)}' if why else memory} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[:200]


def _profile(found: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    if not found:
        yield "Not measured in this run: it needs `perf`."
    for case, shares in found.items():
        yield f"- `{case}`: {', '.join(f'{name} {share:.0%}' for name, share in shares.items())}"


def _tables(records: Sequence[Record]) -> Iterator[str]:
    for case in CASES:
        rows = sorted((row for row in records if row.case == case.name), key=lambda row: row.cpu_us)
        if not rows:
            continue
        ours = next((row.cpu_us for row in rows if row.system == "fairlead"), None)
        yield f"### {case.title} (`{case.name}`)\n"
        yield from _table("system", "CPU us per request", "of fairlead's", "requests/s", "p50 us", "p99 us")
        for row in rows:
            name = f"**{row.system}**" if row.system == "fairlead" else row.system
            ratio = f"{row.cpu_us / ours:.2f}" if ours else ""
            cells = (name, f"{row.cpu_us:,.1f}", ratio, f"{row.requests_per_s:,.0f}", f"{row.p50_us:,.0f}")
            yield f"| {' | '.join(cells)} | {row.p99_us:,.0f} |"
        yield ""


def _table(*heads: str) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
