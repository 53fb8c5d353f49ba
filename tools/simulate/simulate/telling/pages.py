"""The page of figures: what stands between its markers is written from results, the rest by people."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simulate.peers import ask
from simulate.runner import Result
from simulate.setting import Setting
from simulate.telling.tables import TABLES, table_of

_MARKED = re.compile(r"(<!-- simulate:(\w+) -->\n).*?(<!-- /simulate -->)", re.DOTALL)
_OVER_THE_PATH = "null-arriving-zipf0.6-icc0.3-cap50"
_RAMP = "ramp-base-10-to-20-with-the-step-icc-0.02"


def write_pages(folder: Path, settings: Sequence[Setting], page: Path, plots: Path) -> None:
    """Write the tables of a page, and the plots beside it, from the results that are there."""
    results = _results(folder, settings)
    text = _MARKED.sub(
        lambda found: found[1] + _section(found[2], results, len(settings)) + "\n" + found[3], page.read_text()
    )
    page.write_text(text)
    plots.mkdir(exist_ok=True)
    ask("plots.py", _plots(results), str(plots))


def _results(folder: Path, settings: Sequence[Setting]) -> Mapping[str, Result]:
    found = {one.name: folder / f"{one.name}.json" for one in settings}
    return {name: json.loads(path.read_text()) for name, path in found.items() if path.exists()}


def _section(name: str, results: Mapping[str, Result], settings: int) -> str:
    if name in TABLES:
        return table_of(name, [one for one in results.values() if one["table"] == name])
    return _summary(results, settings)


def _summary(results: Mapping[str, Result], settings: int) -> str:
    """Return how much was simulated, and how much of what is claimed holds."""
    claims = [holds for one in results.values() for holds in one["claims"].values()]
    runs = sum(one["runs"] for one in results.values())
    cpu_minutes = sum(one["cpu_s"] for one in results.values()) / 60
    told = f"{len(results)} of {settings} settings, {runs:,} runs, {cpu_minutes:.0f} minutes of processor time; "
    return told + f"{sum(claims)} of {len(claims)} claims hold."


def _plots(results: Mapping[str, Result]) -> list[Mapping[str, Any]]:
    null = [one for one in results.values() if one["table"] == "null"]
    drawn: list[Mapping[str, Any]] = [
        {
            "file": "false-positives.svg",
            "kind": "dots",
            "title": "Runs with a false claim at any of 100 looks, per cent",
            "rows": [one["title"] for one in null],
            "series": {
                "ours": [_share(one, "missed") for one in null],
                "one test over units, at every look": [_share(one, "units_z") for one in null],
                "one test over requests, at every look": [_share(one, "requests_z") for one in null],
            },
            "line": 5.0,
        }
    ]
    if _OVER_THE_PATH in results:
        curves = results[_OVER_THE_PATH]["curves"]
        named = {
            "ours": "missed_curve",
            "over units, every look": "units_z_curve",
            "over requests, every look": "requests_z_curve",
        }
        title = "Nothing is there, and yet a claim was made until then, per cent of runs"
        drawn.append(_curves("over-the-path.svg", title, {name: curves[key] for name, key in named.items()}))
    if _RAMP in results:
        curves = results[_RAMP]["curves"]
        series = {"last step alone": curves["missed_curve"], "pooled over the ramp": curves["pooled_curve"]}
        title = "Nothing is there, 10 % then 50 %, base rate doubles: false claims until then, per cent of runs"
        drawn.append(_curves("ramp.svg", title, series))
    effects = {one["title"]: one["curves"]["found_curve"] for one in results.values() if one["table"] == "effect"}
    capped = {title: curve for title, curve in effects.items() if "no cap" not in title}
    drawn.append(_curves("found.svg", "Effect found until then, per cent of runs", capped))
    return drawn


def _share(result: Result, column: str) -> tuple[float, float]:
    summary = result["columns"][column]
    return 100 * summary["mean"], 100 * (summary["se"] or 0.0)


def _curves(file: str, title: str, series: Mapping[str, Sequence[float]]) -> Mapping[str, Any]:
    percents = {name: [100 * one for one in curve] for name, curve in series.items()}
    return {"file": file, "kind": "curves", "title": title, "series": percents}
