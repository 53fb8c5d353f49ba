"""Where fuzzing's files are."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FUZZ = ROOT / "tools/fuzz"
CORPUS = FUZZ / "corpus"
"""Inputs that once broke something, by target: replayed in ``make test``."""
REQUIREMENTS = FUZZ / "requirements.txt"
BUILD = ROOT / "build/fuzz"
FINDINGS = BUILD / "findings"
GROWN = BUILD / "corpus"
"""Inputs that reached new code in earlier runs, by target."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fairlead/fuzz"
