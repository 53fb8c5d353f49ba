"""Skew as a picture: one bar per feature, cut by cause. SVG, without scripts and fonts of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

from fairlead.skew.cause import Cause
from fairlead.skew.report import FeatureSkew, ModelSkew

_WIDTH, _LEFT, _ROW, _HEAD = 900, 330, 22, 64
_RIGHT = 70
_COLOURS: Final[Mapping[Cause, str]] = {
    Cause.STORE_ERROR: "#4c4c4c",
    Cause.LATE_DATA: "#0072b2",
    Cause.NEVER_WRITTEN: "#cc79a7",
    Cause.PUSH_LAG: "#e69f00",
    Cause.TTL: "#009e73",
    Cause.NOT_OFFLINE: "#56b4e9",
    Cause.VALUES_DIFFER: "#d55e00",
}
"""Okabe and Ito's, which the colour-blind tell apart."""


def drawn(found: Sequence[ModelSkew], most_skew: float) -> str:
    """Return the SVG of all models, one below the other.

    Args:
        found: What was compared.
        most_skew: Share that is marked by a line, 0 to 1.
    """
    heights = [_HEAD + _ROW * len(one.features) + _ROW for one in found]
    parts: list[str] = []
    top = 0
    for one, height in zip(found, heights, strict=True):
        parts.append(f'<g transform="translate(0 {top})">')
        parts += _model(one, most_skew)
        parts.append("</g>")
        top += height
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" font-family="sans-serif" font-size="13">'
    )
    return "\n".join([head, f'<rect width="{_WIDTH}" height="{top}" fill="white"/>', *parts, "</svg>", ""])


def _model(found: ModelSkew, most_skew: float) -> Iterator[str]:
    scale = max(found.worst, most_skew, 1e-9)
    title = f"{found.model} {found.version}: values that differ from point-in-time features, {found.rows:,} rows"
    yield f'<text x="10" y="22" font-size="15" font-weight="bold">{escape(title)}</text>'
    yield from _legend(found)
    ordered = sorted(found.features, key=lambda feature: -feature.share)
    for row, feature in enumerate(ordered):
        yield from _bar(feature, _HEAD + row * _ROW, scale)
    x, end = _LEFT + _across(most_skew, scale), _HEAD + _ROW * len(ordered)
    yield f'<line x1="{x:.1f}" y1="{_HEAD - 4}" x2="{x:.1f}" y2="{end}" stroke="#888" stroke-dasharray="3 3"/>'
    yield f'<text x="{x:.1f}" y="{end + 13}" fill="#666" text-anchor="middle">{most_skew:.2%} may differ</text>'


def _legend(found: ModelSkew) -> Iterator[str]:
    x = 10
    for cause, colour in _COLOURS.items():
        if any(cause in feature.causes for feature in found.features):
            name = cause.value.replace("_", " ")
            yield f'<rect x="{x}" y="36" width="12" height="12" fill="{colour}"/>'
            yield f'<text x="{x + 17}" y="47">{name}</text>'
            x += 34 + 8 * len(name)


def _bar(feature: FeatureSkew, y: int, scale: float) -> Iterator[str]:
    yield f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(feature.feature)}</text>'
    x = float(_LEFT)
    for cause, colour in _COLOURS.items():
        amount = feature.causes.get(cause, 0)
        if amount:
            width = _across(amount / feature.compared, scale)
            yield f'<rect x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 6}" fill="{colour}"/>'
            x += width
    yield f'<text x="{x + 6:.1f}" y="{y + 14}">{feature.share:.2%}</text>'


def _across(share: float, scale: float) -> float:
    return (_WIDTH - _LEFT - _RIGHT) * share / scale
