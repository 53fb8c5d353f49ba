"""Pictures of intervals as geometry: where each line lies in a drawing, and which words stand beside it.

Pure. A template draws what is said here; nothing is styled here. Lengths are in units of the drawing, which grows and
shrinks with the page. Effects are numbers of one scale, 0.05 for 5 % if it is relative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from fairlead.clock import from_us

WIDTH = 360
"""Of every drawing; that of a phone, so that words stay as large as the page's."""
ROW = 30
_MARGIN = 12
_AXIS = 22
_HEAD = 18
_PATH_HEIGHT = 190
_PATH_LEFT = 48
_FARTHEST = 8.0
"""An interval is cut off, with an arrow, beyond so many times the threshold, but never at its estimate."""
_TICKS = 5
_STEPS_S = (
    60,
    300,
    900,
    3600,
    3 * 3600,
    6 * 3600,
    12 * 3600,
    86400,
    2 * 86400,
    4 * 86400,
    7 * 86400,
    14 * 86400,
    28 * 86400,
)

Label = Callable[[float], str]
"""Writes an effect."""


class Threshold(StrEnum):
    """What an effect is held against."""

    MINIMUM = "minimum"
    """Beyond it, in the better direction, a change is worth shipping."""
    MARGIN = "margin"
    """Beyond it, in the worse direction, a treatment is not acceptable."""


@dataclass(frozen=True, slots=True)
class Interval:
    """One effect as it is known."""

    name: str
    low: float | None
    """None: unbounded."""
    high: float | None
    estimate: float


@dataclass(frozen=True, slots=True)
class Look:
    """What was known at one moment."""

    at_us: int
    interval: Interval | None
    """None where nothing could be said."""


@dataclass(frozen=True, slots=True)
class Against:
    """What effects are held against, and where better is."""

    threshold: Threshold
    at: float
    """The threshold with its sign."""
    lower_is_better: bool
    label: Label


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """An interval as it is drawn."""

    name: str
    y: float
    low: float
    high: float
    estimate: float
    cut_low: bool
    cut_high: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """Intervals side by side on one axis."""

    width: float
    height: float
    top: float
    bottom: float
    ticks: tuple[Tick, ...]
    zero: float
    threshold: float
    threshold_label: str
    threshold_kind: Threshold
    zone_from: float
    zone_width: float
    """Where changes are worth shipping, or not acceptable."""
    lower_is_better: bool
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time without a gap in which something could be said."""

    band: str
    """Points of the polygon between the bounds."""
    line: str
    """Points of the estimate."""


@dataclass(frozen=True, slots=True)
class PathDrawing:
    """An interval over time."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    ticks: tuple[Tick, ...]
    times: tuple[Tick, ...]
    zero: float
    threshold: float
    threshold_label: str
    threshold_kind: Threshold
    zone_from: float
    zone_height: float
    stretches: tuple[Stretch, ...]
    decided: float | None
    """Where the decision was made."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """A linear map of numbers to lengths."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 2)


def drawn(intervals: Sequence[Interval], against: Against) -> Drawing:
    """Lay out intervals, one below the other, on an axis that has zero and the threshold in sight."""
    axis = _Axis(*_reach(intervals, against, intervals), _MARGIN, WIDTH - _MARGIN)
    bottom = _HEAD + ROW * len(intervals)
    beyond = _beyond(against, axis)
    return Drawing(
        width=WIDTH,
        height=bottom + _AXIS,
        top=_HEAD,
        bottom=bottom,
        ticks=tuple(_ticks(axis, against.label)),
        zero=axis.at(0),
        threshold=axis.at(against.at),
        threshold_label=against.label(against.at),
        threshold_kind=against.threshold,
        zone_from=min(beyond),
        zone_width=round(max(beyond) - min(beyond), 2),
        lower_is_better=against.lower_is_better,
        bars=tuple(_bar(one, axis, _HEAD + ROW * (row + 0.5)) for row, one in enumerate(intervals)),
    )


def drawn_path(looks: Sequence[Look], against: Against, *, decided_us: int | None = None) -> PathDrawing | None:
    """Lay out an interval over time; None with fewer than two looks that say something."""
    told = [look.interval for look in looks if look.interval is not None]
    if len(told) < 2:  # noqa: PLR2004 -- a line needs two ends
        return None
    low, high = _reach(told, against, told[-1:])
    up = _Axis(low, high, _PATH_HEIGHT - _AXIS, _HEAD)
    first, last = looks[0].at_us, max(looks[-1].at_us, decided_us or 0)
    along = _Axis(first, max(last, first + 1), _PATH_LEFT, WIDTH - _MARGIN)
    beyond = _beyond(against, up)
    return PathDrawing(
        width=WIDTH,
        height=_PATH_HEIGHT,
        left=_PATH_LEFT,
        right=WIDTH - _MARGIN,
        top=_HEAD,
        bottom=_PATH_HEIGHT - _AXIS,
        ticks=tuple(_ticks(up, against.label)),
        times=tuple(_time_ticks(along)),
        zero=up.at(0),
        threshold=up.at(against.at),
        threshold_label=against.label(against.at),
        threshold_kind=against.threshold,
        zone_from=min(beyond),
        zone_height=round(max(beyond) - min(beyond), 2),
        stretches=tuple(_stretches(looks, along, up)),
        decided=None if decided_us is None else along.at(decided_us),
    )


def _reach(intervals: Iterable[Interval], against: Against, known: Sequence[Interval]) -> tuple[float, float]:
    """Return the ends of an axis.

    Zero, the threshold and the estimates of ``known`` lie inside; and all intervals, unless they are far out.
    """
    most = max(_FARTHEST * abs(against.at), *(1.25 * abs(one.estimate) for one in known))
    wanted = [0.0, against.at]
    for one in intervals:
        wanted += [end for end in (one.low, one.high, one.estimate) if end is not None]
        wanted += [one.estimate - abs(against.at)] if one.low is None else []
        wanted += [one.estimate + abs(against.at)] if one.high is None else []
    low, high = max(min(wanted), -most), min(max(wanted), most)
    room = 0.08 * (high - low)
    worse_room = -0.4 * against.at
    return min(low - room, worse_room), max(high + room, worse_room)


def _beyond(against: Against, axis: _Axis) -> tuple[float, float]:
    """Return from where to where the threshold is passed."""
    return axis.at(against.at), axis.start if against.at < 0 else axis.end


def _bar(one: Interval, axis: _Axis, y: float) -> Bar:
    low, high = one.low, one.high
    return Bar(
        name=one.name,
        y=y,
        low=axis.at(axis.low if low is None else low),
        high=axis.at(axis.high if high is None else high),
        estimate=axis.at(one.estimate),
        cut_low=low is None or low < axis.low,
        cut_high=high is None or high > axis.high,
    )


def _ticks(axis: _Axis, label: Label) -> Iterator[Tick]:
    step = _nice((axis.high - axis.low) / _TICKS)
    for number in range(math.ceil(axis.low / step), math.floor(axis.high / step) + 1):
        yield Tick(axis.at(number * step), label(number * step))


def _nice(least: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that is not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * 0.999)


def _time_ticks(axis: _Axis) -> Iterator[Tick]:
    span_s = (axis.high - axis.low) / 1e6
    step_s = next((step for step in _STEPS_S if span_s / step <= _TICKS), None)
    step_us = int(step_s or math.ceil(span_s / _TICKS / 86400) * 86400) * 1_000_000
    for number in range(math.ceil(axis.low / step_us), math.floor(axis.high / step_us) + 1):
        moment = from_us(number * step_us)
        yield Tick(axis.at(number * step_us), _moment(moment, daily=step_us >= 86400 * 1_000_000))


def _moment(moment: datetime, *, daily: bool) -> str:
    midnight = (moment.hour, moment.minute) == (0, 0)
    return f"{moment.day} {moment:%b}" if daily or midnight else f"{moment:%H:%M}"


def _stretches(looks: Sequence[Look], along: _Axis, up: _Axis) -> Iterator[Stretch]:
    run: list[tuple[int, Interval]] = []
    for look in (*looks, Look(0, None)):
        if look.interval is not None:
            run.append((look.at_us, look.interval))
        elif run:
            yield _stretch(run, along, up)
            run = []


def _stretch(run: Sequence[tuple[int, Interval]], along: _Axis, up: _Axis) -> Stretch:
    if len(run) == 1:  # a moment alone is drawn as wide as a line
        run = [run[0], (run[0][0] + int((along.high - along.low) / 200), run[0][1])]
    upper = [(along.at(at), up.at(up.high if one.high is None else one.high)) for at, one in run]
    lower = [(along.at(at), up.at(up.low if one.low is None else one.low)) for at, one in run]
    middle = [(along.at(at), up.at(one.estimate)) for at, one in run]
    return Stretch(_points([*upper, *reversed(lower)]), _points(middle))


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)
