"""Figures that tests measured: printed, and kept under ``build/cluster/figures`` for whoever compares runs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "build/cluster/figures"


def note(name: str, **values: float | str) -> None:
    """Print figures and write them to ``NAME.json``."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in values.items()}
    (FOLDER / f"{name}.json").write_text(json.dumps(rounded, indent=2) + "\n")
    sys.stdout.write(f"{name}: {' '.join(f'{key}={value}' for key, value in rounded.items())}\n")


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of ``values`` do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
