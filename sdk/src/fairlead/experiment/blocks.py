"""Blocks of time: what strikes many units at once (a stall, a busy node) is one event, however many requests it hits.

A block is what one server answered within some minutes. Short blocks are soon enough many; long ones see stalls that
last. Variances over both are compared with that over units (`fairlead.experiment.estimate.larger`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK_MINUTES = (1, 5, 30)
"""Lengths of blocks: the longer see stalls that last, of the shorter there are soon enough."""


def blocks_by_length(server: ArrayLike, minute: ArrayLike) -> Iterator[NDArray[np.int64]]:
    """Yield, for each of `BLOCK_MINUTES`, which block each row is in, [rows], numbered from 0.

    Args:
        server: Which server, [rows], whole numbers.
        minute: Since 1970-01-01 UTC, [rows].
    """
    who, when = np.asarray(server, np.int64), np.asarray(minute, np.int64)
    for length in BLOCK_MINUTES:
        _, block = np.unique(np.stack([who, when // length]), axis=1, return_inverse=True)
        yield block.reshape(-1)
