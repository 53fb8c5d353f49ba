"""Rows of the small feature repository (see :mod:`support.store`) for training: deterministic, with gaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairlead.contract import Training, sha256

NUMERIC = (
    "origin_weather__temp",
    "origin_weather__wind",
    "tail_performance__mean_delay",
    "pair_performance__mean_delay",
    "departure__distance_km",
)
"""Float features of the service ``small``."""
COUNTS = ("tail_performance__flights", "plane__seats", "departure__evening")
"""Whole-number features."""
TEXT = "plane__maker"
FLAG = "plane__jet"
COLUMNS = (*NUMERIC, *COUNTS, TEXT, FLAG)
DEFAULTS = {
    "tail_performance__flights": 0,
    "plane__seats": 0,
    "plane__maker": "unknown",
    "plane__jet": False,
}
"""For the features whose types have no missing value."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Rows to train on and rows held out, with labels."""

    train: pd.DataFrame
    holdout: pd.DataFrame
    late_train: NDArray[np.bool_]
    late: NDArray[np.bool_]
    """Labels of the held-out rows."""

    @property
    def training(self) -> Training:
        return Training(
            start="2013-01-01T00:00:00Z",
            end="2013-11-01T00:00:00Z",
            rows=len(self.train),
            data_digest=sha256(b"frames"),
        )


def make_frames(rows: int = 3000, seed: int = 0) -> Frames:
    """Return ``rows`` rows, two thirds of them to train on; a tenth of each float is missing."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        "origin_weather__temp": rng.normal(50, 15, rows).astype(np.float32),
        "origin_weather__wind": rng.exponential(8, rows),
        "tail_performance__mean_delay": rng.normal(5, 20, rows).astype(np.float32),
        "pair_performance__mean_delay": rng.normal(3, 10, rows),
        "departure__distance_km": rng.uniform(100, 4000, rows),
        "tail_performance__flights": rng.integers(0, 9, rows),
        "plane__seats": rng.choice([50, 120, 180], rows),
        "departure__evening": rng.integers(0, 2, rows),
        "plane__maker": rng.choice(["airbus", "boeing", "embraer"], rows),
        "plane__jet": rng.random(rows) < 0.9,
    }
    frame = pd.DataFrame(columns)
    score = (
        frame["tail_performance__mean_delay"] / 20
        + frame["departure__evening"]
        + (frame["plane__maker"] == "boeing")
        + frame["origin_weather__wind"] / 10
        + rng.normal(0, 1, rows)
    )
    late = (score > 2).to_numpy(dtype=np.bool_)
    for name in NUMERIC:
        frame.loc[rng.random(rows) < 0.1, name] = np.nan
    frame["origin"] = rng.choice(["EWR", "JFK", "LGA"], rows)
    cut = rows * 2 // 3
    return Frames(frame[:cut], frame[cut:].reset_index(drop=True), late[:cut], late[cut:])
