"""Plots as SVG, the same bytes from the same figures: their descriptions as JSON on stdin, a folder as argument."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

Plot = dict[str, Any]
INK = ("#1b6ca8", "#d1495b", "#8d6a9f", "#2e8b57", "#b8860b", "#555555")
MARKERS = ("o", "s", "^")


def main(folder: Path) -> None:
    """Draw every plot."""
    mpl.rcParams.update({"svg.hashsalt": "fairlead", "font.size": 9, "svg.fonttype": "none"})
    for plot in json.load(sys.stdin):
        figure = _dots(plot) if plot["kind"] == "dots" else _curves(plot)
        figure.tight_layout()
        figure.savefig(folder / plot["file"], metadata={"Date": None, "Creator": None}, facecolor="white")


def _dots(plot: Plot) -> Figure:
    figure = Figure(figsize=(9, 1.2 + 0.21 * len(plot["rows"])))
    axes = figure.subplots()
    places = range(len(plot["rows"]))
    for (name, values), colour, marker in zip(plot["series"].items(), INK, MARKERS, strict=False):
        means, errors = zip(*values, strict=True)
        axes.errorbar(means, places, xerr=errors, fmt=marker, color=colour, label=name, markersize=4, linewidth=1)
    axes.axvline(plot["line"], color="#999999", linewidth=1, linestyle="--")
    axes.set(title=plot["title"], yticks=list(places), yticklabels=plot["rows"], xlim=(0, 100))
    axes.invert_yaxis()
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.04), ncols=3, frameon=False)
    return figure


def _curves(plot: Plot) -> Figure:
    figure = Figure(figsize=(9, 4))
    axes = figure.subplots()
    for (name, values), colour in zip(plot["series"].items(), INK, strict=False):
        percent = [100 * (look + 1) / len(values) for look in range(len(values))]
        axes.plot(percent, values, color=colour, label=name, linewidth=1.5)
    axes.set(title=plot["title"], xlabel="traffic, per cent", xlim=(0, 100), ylim=(0, 102))
    axes.axhline(5, color="#999999", linewidth=1, linestyle="--")
    axes.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main(Path(sys.argv[1]))
