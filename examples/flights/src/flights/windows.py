"""Rolling windows over events of a key: pure functions on arrays, exact on integers.

A window is half open, ``(at - width, at]``: an event at the window's start is out, one at its end is in.
Times are int64 microseconds since 1970-01-01 UTC; keys are int64 codes from 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Events:
    """Things that happened to keys; rows are events, in any order."""

    keys: Ints
    """Shape [n], codes from 0."""
    times_us: Ints
    """Shape [n]."""
    values: Floats
    """Shape [n, k]; whole numbers, so that sums are exact."""


@dataclass(frozen=True, slots=True)
class Sums:
    """What windows hold; rows are windows."""

    counts: Ints
    """Events, shape [m]."""
    sums: Floats
    """Sums of the events' values, shape [m, k]."""

    @property
    def means(self) -> Floats:
        """Means of the events' values, shape [m, k]; NaN for an empty window."""
        counts = np.where(self.counts == 0, np.nan, self.counts)
        return self.sums / counts[:, None]


def rolling_sums(events: Events, keys: Ints, at_us: Ints, width_us: int) -> Sums:
    """Count and sum the events of ``(at - width, at]`` for each pair of key and moment.

    Args:
        events: What happened.
        keys: Key of each window, shape [m].
        at_us: End of each window, shape [m].
        width_us: Width of the windows.

    Returns:
        Counts and sums, in the order of ``keys``.
    """
    order = np.lexsort((events.times_us, events.keys))
    running = np.vstack([np.zeros((1, events.values.shape[1])), np.cumsum(events.values[order], axis=0)])
    lines = _Lines.over(events, at_us, width_us)
    happened = lines.place(events.keys[order], events.times_us[order])
    first = np.searchsorted(happened, lines.place(keys, at_us - width_us), side="right")
    beyond = np.searchsorted(happened, lines.place(keys, at_us), side="right")
    return Sums((beyond - first).astype(np.int64), running[beyond] - running[first])


def last_before(keys: Ints, times_us: Ints, at_keys: Ints, at_us: Ints) -> Ints:
    """Return for each pair of key and moment the index of the key's last row at or before it, -1 if there is none.

    Args:
        keys: Key of each row, shape [n].
        times_us: Time of each row, shape [n]; of rows of a key with equal times the last one counts.
        at_keys: Keys to look up, shape [m]; -1 is a key without rows.
        at_us: Moments to look up, shape [m].
    """
    if not len(keys):
        return np.full(len(at_keys), -1, dtype=np.int64)
    order = np.lexsort((times_us, keys))
    lines = _Lines.over(Events(keys, times_us, np.zeros((0, 0))), at_us, 0)
    found = np.searchsorted(lines.place(keys[order], times_us[order]), lines.place(at_keys, at_us), side="right") - 1
    row = order[np.maximum(found, 0)]
    return np.where((found >= 0) & (keys[row] == at_keys), row, -1)


def grid_end(times_us: Ints, step_us: int) -> Ints:
    """Return the end of the grid cell ``(end - step, end]`` that each time lies in."""
    return -(-times_us // step_us) * step_us


@dataclass(frozen=True, slots=True)
class _Lines:
    """One number line for all keys: each key has its own stretch, so that one search serves all of them."""

    origin_us: int
    stretch_us: int

    @classmethod
    def over(cls, events: Events, at_us: Ints, width_us: int) -> _Lines:
        times = np.concatenate([events.times_us, at_us])
        first, last = (int(times.min()), int(times.max())) if len(times) else (0, 0)
        return cls(first - width_us, last - first + width_us + 1)

    def place(self, keys: Ints, times_us: Ints) -> Ints:
        return keys * self.stretch_us + (times_us - self.origin_us)
