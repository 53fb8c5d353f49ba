"""How good the served probabilities were, once the labels are in."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_CLIP = 1e-7


@dataclass(frozen=True, slots=True)
class Score:
    """Proper scores of one arm over the flights that have landed."""

    labelled: int
    brier: float | None
    """Mean squared error of the probability, 0 (best) to 1; None without labels."""
    log_loss: float | None
    """Mean negative log likelihood, nats; None without labels."""


@dataclass(slots=True)
class Labels:
    """Delivers each flight's label when it lands, and keeps what has been delivered."""

    landed_us: NDArray[np.int64]
    """Landing times, microseconds since 1970-01-01 UTC, shape [n]."""
    _order: NDArray[np.intp] = field(init=False)
    _delivered: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._order = np.argsort(self.landed_us, kind="stable")

    def deliver_until(self, time_us: int) -> NDArray[np.intp]:
        """Return the indices of flights that have landed since the last call and up to ``time_us``."""
        first = self._delivered
        self._delivered = int(np.searchsorted(self.landed_us[self._order], time_us, side="right"))
        return self._order[first : self._delivered]


def score(probability: NDArray[np.float64], late: NDArray[np.int8]) -> Score:
    """Score probabilities against labels; both shape [n], rows without an answer (NaN) are left out."""
    answered = ~np.isnan(probability)
    p, y = probability[answered], late[answered].astype(np.float64)
    if not len(p):
        return Score(0, None, None)
    clipped = np.clip(p, _CLIP, 1 - _CLIP)
    loss = -(y * np.log(clipped) + (1 - y) * np.log(1 - clipped))
    return Score(len(p), float(np.mean((p - y) ** 2)), float(np.mean(loss)))
