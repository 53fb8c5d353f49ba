"""CPU per request as bars, drawn as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.cases import CASES
from bench.results import Record

SHOWN = ("v2-json-1x16", "v1-json-1x16", "grpc-1x16")
_WIDTH, _LEFT, _RIGHT, _ROW, _GAP = 860, 150, 70, 20, 46
_COLOURS = {"fairlead": "#1a7f64", "native": "#8a8a8a", "nginx-static": "#8a8a8a"}
_OTHER = "#4a7ab5"


def svg(records: Sequence[Record]) -> str:
    """Return the plot of the shown cases: a bar for each system, microseconds on a logarithmic scale."""
    groups = [
        (case.title, sorted((row for row in records if row.case == case.name), key=lambda row: row.cpu_us))
        for case in CASES
        if case.name in SHOWN
    ]
    groups = [(title, rows) for title, rows in groups if rows]
    costs = [row.cpu_us for _, rows in groups for row in rows] or [1.0, 10.0]
    low, high = math.floor(math.log10(min(costs))), math.ceil(math.log10(max(costs)))
    parts: list[str] = []
    top = 30
    for title, rows in groups:
        parts.append(f'<text x="0" y="{top}" font-weight="bold">{title}: CPU us per request</text>')
        for row in rows:
            top += _ROW
            share = (math.log10(row.cpu_us) - low) / max(high - low, 1)
            length = round(share * (_WIDTH - _LEFT - _RIGHT), 1)
            colour = _COLOURS.get(row.system.removesuffix("-metrics"), _OTHER)
            parts += [
                f'<text x="{_LEFT - 8}" y="{top}" text-anchor="end">{row.system}</text>',
                f'<rect x="{_LEFT}" y="{top - 12}" width="{length}" height="14" fill="{colour}"/>',
                f'<text x="{_LEFT + length + 6}" y="{top}">{row.cpu_us:,.3g}</text>'
                if row.cpu_us < 1000  # noqa: PLR2004 -- digits
                else f'<text x="{_LEFT + length + 6}" y="{top}">{row.cpu_us:,.0f}</text>',
            ]
        top += _GAP
    height = max(top - _GAP + _ROW, _ROW)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif"'
    return "\n".join([f'{head} font-size="13">', '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])
