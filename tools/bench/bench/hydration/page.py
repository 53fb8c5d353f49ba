"""Writes what was measured into ``docs/performance-hydration.md``, and says whether the page agrees with its data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import results
from bench.goals import Goal
from bench.results import Record

PAGE, DATA = "docs/performance-hydration.md", "docs/performance-hydration.json"
_MARK = re.compile(r"(<!-- hydration:(\w+) -->\n).*?(<!-- /hydration -->)", re.DOTALL)
_HASHES = "hashes.json"
HEADS = (
    "fields in the hash",
    "wanted",
    "server us: HMGET, HGETALL",
    "CPU us here",
    "p50 us",
    "us per hash, 100 at once",
)
"""Of the table of hashes."""
_QUIET = results.QUIET
_ABOVE_US, _TIMES_ONE, _TIMES_IN_FLIGHT, _TIMES_ODFV, _TAIL = 100, 4, 10, 5, 2
_TITLES = {
    "redis-30x1": "Redis, 30 features in 3 views of one entity, 1 row",
    "redis-30x100": "the same, 100 rows",
    "redis-30-32inflight": "the same, 1 row, 32 in flight",
    "redis-odfv-1": "the same with an on-demand view in mode python, 1 row",
    "redis-odfv-singleton-1": "the same as a singleton",
    "sqlite-30x1": "SQLite, 30 features in 3 views, 1 row",
}


def write(root: Path, build: Path) -> list[str]:
    """Take over the last run, if there was one: data and page; return what was written."""
    if not (build / "hydration.json").exists():
        return []
    hashes = build / _HASHES
    data = {
        "meta": json.loads((build / "hydration.meta.json").read_text()),
        "records": [asdict(row) for row in results.read(build / "hydration.json")],
        "hashes": json.loads(hashes.read_text()) if hashes.exists() else _data(root).get("hashes", []),
    }
    (root / DATA).write_text(json.dumps(data, indent=1) + "\n")
    (root / PAGE).write_text(_generated(root))
    return [DATA, PAGE]


def differing(root: Path) -> list[str]:
    """Return the page's name if it is not what the committed data make of it."""
    return [PAGE] if (root / PAGE).read_text() != _generated(root) else []


def show(console: Console, build: Path) -> None:
    """Print the last run and its goals."""
    records, meta = results.read(build / "hydration.json"), json.loads((build / "hydration.meta.json").read_text())
    table = Table("case", "system", "p50 us", "p99 us", "CPU us", "calls/s")
    for row in (*records, *(Record(**of) for of in meta["besides"])):
        table.add_row(row.case, row.system, *_figures(row))
    console.print(table)
    for goal in goals(records, meta["besides"]):
        if goal.met is not None:
            console.print(f"{'met   ' if goal.met else 'missed'} {goal.what}: {goal.goal}; {goal.measured}")
    console.print(
        f"others took {meta['others']:.2f} of the two CPUs; full collections during calls: {_collections(meta)}"
    )


def goals(records: Sequence[Record], besides: Sequence[Mapping[str, Any]] = ()) -> list[Goal]:
    """Return every goal with what was measured."""
    found = {(row.case, row.system): row for row in (*records, *(Record(**of) for of in besides))}
    return [*_one_row(found), *_others(found)]


def _one_row(found: Mapping[tuple[str, str], Record]) -> Iterator[Goal]:
    case = "redis-30x1"
    ours, trip = found.get((case, "fairlead")), found.get((case, "roundtrip"))
    above_us = ours.p50_us - trip.p50_us if ours and trip else None
    yield Goal(
        "1 row: p50 above the bare round trip's",
        f"< {_ABOVE_US} us",
        "" if above_us is None else f"{above_us:.0f} us",
        None if above_us is None else above_us < _ABOVE_US,
    )
    yield _times("1 row: p50", found, case, _TIMES_ONE)


def _others(found: Mapping[tuple[str, str], Record]) -> Iterator[Goal]:
    case = "redis-30-32inflight"
    ours, feasts = found.get((case, "fairlead")), found.get((case, "feast"))
    times = ours.requests_per_s / feasts.requests_per_s if ours and feasts else None
    yield Goal(
        "32 in flight: lookups a second, of Feast's asynchronous call's",
        f">= {_TIMES_IN_FLIGHT}x",
        "" if times is None else f"{times:.1f}x",
        None if times is None else times >= _TIMES_IN_FLIGHT,
    )
    yield _times("100 rows: p50", found, "redis-30x100", _TIMES_ONE)
    many = found.get(("redis-30x100", "fairlead"))
    tail = many.p99_us / many.p50_us if many else None
    yield Goal(
        "100 rows: p99 of p50, over 10,000 calls",
        f"< {_TAIL}x",
        "" if tail is None else f"{tail:.2f}x",
        None if tail is None else tail < _TAIL,
    )
    yield _times("on-demand view in mode python, 1 row: p50", found, "redis-odfv-1", _TIMES_ODFV)
    yield _times("on-demand view as a singleton, 1 row: p50", found, "redis-odfv-singleton-1", _TIMES_ODFV)


def _times(what: str, found: Mapping[tuple[str, str], Record], case: str, least: float) -> Goal:
    ours, feasts = found.get((case, "fairlead")), found.get((case, "feast"))
    times = feasts.p50_us / ours.p50_us if ours and feasts else None
    measured = "" if times is None else f"{times:.1f}x"
    return Goal(f"{what}, Feast's of ours", f">= {least}x", measured, None if times is None else times >= least)


def _data(root: Path) -> dict[str, Any]:
    path = root / DATA
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _generated(root: Path) -> str:
    data = _data(root)
    records = [Record(**row) for row in data["records"]]
    parts = {
        "about": _about(data["meta"]),
        "goals": "\n".join(_goals(records, data["meta"]["besides"])),
        "figures": "\n".join(_rows([*records, *(Record(**of) for of in data["meta"]["besides"])])),
        "hashes": "\n".join(_hashes(data["hashes"])),
    }
    return _MARK.sub(lambda mark: f"{mark[1]}{parts[mark[2]]}\n{mark[3]}", (root / PAGE).read_text())


def _about(meta: Mapping[str, Any]) -> str:
    kind = "A quick run" if meta["quick"] else "A full run"
    told = (
        f"{kind} of {meta['at'][:10]}: {meta['cpus']} CPUs ({meta['cpu']}), CPython {meta['python']}, Feast "
        f"{meta['feast']}; {meta['rounds']} rounds; others took {meta['others']:.2f} of the two CPUs meanwhile. "
        f"{meta['gc_frozen_objects']:,} objects were out of the garbage collector's sight; full collections during "
        f"calls: {_collections(meta)}."
    )
    busy = (
        "\n\n**Others worked on this machine meanwhile**: microseconds are dearer for everybody, a p99 is theirs, and "
        "a long call is interrupted more often than a short one, which flatters ratios of p50; those of CPU are "
        "steadier."
    )
    return told + (busy if meta["others"] > _QUIET else "")


def _collections(meta: Mapping[str, Any]) -> str:
    return ", ".join(f"{amount} of {system}'s" for system, amount in sorted(meta["gc_full_collections"].items()))


def _goals(records: Sequence[Record], besides: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from _heads("what", "goal", "measured", "met")
    for goal in goals(records, besides):
        met = {True: "yes", False: "**no**", None: "not measured in this run"}[goal.met]
        yield f"| {goal.what} | {goal.goal} | {goal.measured} | {met} |"


def _rows(records: Sequence[Record]) -> Iterator[str]:
    yield from _heads("case", "system", "p50 us", "p99 us", "CPU us per call", "calls/s")
    for row in records:
        yield f"| {_TITLES[row.case]} (`{row.case}`) | {row.system} | {' | '.join(_figures(row))} |"


def cells(row: Mapping[str, Any]) -> Sequence[str]:
    """Return one line of the table of hashes, under ``HEADS``."""
    pairs = (
        f"{row['hmget'][of]:.1f}, {row['hgetall'][of]:.1f}" for of in ("server_us", "cpu_us", "p50_us", "batch_us")
    )
    return str(row["fields"]), str(row["wanted"]), *pairs


def _hashes(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from _heads(*HEADS)
    for row in rows:
        yield f"| {' | '.join(cells(row))} |"


def _heads(*heads: str) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)


def _figures(row: Record) -> Sequence[str]:
    return f"{row.p50_us:,.0f}", f"{row.p99_us:,.0f}", f"{row.cpu_us:,.0f}", f"{row.requests_per_s:,.0f}"
