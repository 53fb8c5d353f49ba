"""One sampled request, as it is handed from the event loop to the thread that writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairlead.policy import FeatureState

Columns = Mapping[str, NDArray[np.generic]]
"""Arrays of shape [rows] by name; never written to."""

_MOST_SHARED = 4
"""A part of an array that is so many times larger is copied, so that it is not kept in memory as a whole."""


class Record(NamedTuple):
    """A request and its answer."""

    at_us: int
    """When features were looked up, microseconds since 1970."""
    rows: int
    keys: Columns
    """Join keys and request features."""
    features: Columns
    """What the model saw."""
    states: Mapping[str, Sequence[FeatureState]]
    """By stored feature, one per row."""
    event_us: Mapping[str, Sequence[int]]
    """By view, event time of each row's data, microseconds since 1970; 0 without any, empty if nothing was read."""
    outputs: Columns


def owned(columns: Columns) -> Columns:
    """Return arrays that keep no much larger ones in memory, which several requests share."""
    return {name: column if column.base is None else _owned(column) for name, column in columns.items()}


def _owned(column: NDArray[np.generic]) -> NDArray[np.generic]:
    base = column.base
    if isinstance(base, np.ndarray) and base.size <= _MOST_SHARED * column.size:
        return column
    return column.copy()
