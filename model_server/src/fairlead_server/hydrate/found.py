"""What a read of the online store gives, in columns: one array per feature, and what is not a plain value beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairlead.contract import Scalar
from fairlead.policy import FeatureState

Array = NDArray[np.generic]

Key = tuple[Scalar, ...]
"""Values of a view's join keys, in the plan's order."""

JoinKeys = tuple[str, ...]
"""Names of join keys in a request; views that share them are asked for the same keys."""

Lookup = Mapping[JoinKeys, Sequence[Key]]
"""Distinct keys to look up, by their names."""


class Odd(NamedTuple):
    """One cell without a value."""

    feature: int
    """Place of the feature in the view's plan."""
    key: int
    """Place of the key in the lookup."""
    state: FeatureState
    """NULL, NEVER_WRITTEN or STORE_ERROR."""


class ViewRead(NamedTuple):
    """One view as it was found for the keys of a lookup."""

    event_us: Sequence[int]
    """Event time by key, microseconds since 1970; 0 where the store has no row."""
    columns: Sequence[Array]
    """By feature, shape [keys], writable, of the contract's types; anything where there is no value."""
    odd: Sequence[Odd]
    """Cells of rows that are there without a value; all others of those rows have one."""

    @classmethod
    def joined(cls, parts: Sequence[ViewRead]) -> ViewRead:
        """Put reads of successive keys together."""
        starts = accumulate((len(part.event_us) for part in parts), initial=0)
        return cls(
            [us for part in parts for us in part.event_us],
            [np.concatenate(columns) for columns in zip(*(part.columns for part in parts), strict=True)],
            [
                Odd(f, key + start, state)
                for part, start in zip(parts, starts, strict=False)
                for f, key, state in part.odd
            ],
        )


Found = Mapping[str, ViewRead | None]
"""By view; None where it could not be read."""

Heard = Callable[[Found | Exception], None]
"""Told what was found, or why nothing was."""
