"""Tests of the repository's own programs import their packages."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools/e2e"))
