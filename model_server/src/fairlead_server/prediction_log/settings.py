"""Whether and how predictions are logged. Needs neither Arrow nor Feast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fairlead.contract import Contract
from fairlead.policy import Hydration


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Where the log is, and how much is logged."""

    folder: Path
    """Of the log; each model has a folder in it."""
    sample: float = 0.01
    """Share of the hydrated requests that are logged, above 0 and at most 1."""
    limit_bytes: int = 2**30
    """Size of all files beyond which the oldest are removed."""
    with_keys: bool = True
    """Whether join keys and request features are written; without them nothing can be replayed."""
    roll_s: float = 60.0
    """Longest time until a row that was handed over is in a file, seconds."""
    most_waiting_rows: int = 20_000
    """Rows that may wait for the thread; those of further requests are dropped."""


@dataclass(frozen=True, slots=True)
class Logged:
    """Which model is logged."""

    contract: Contract
    hydration: Hydration
    model: str
    """What clients call it."""
    version: str
    variant: str
    revision: str
