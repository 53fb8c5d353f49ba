"""Where the example keeps its files, all inside the checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
"""The checkout."""

FEATURE_REPO = ROOT / "feature_repo"
"""The Feast repository: definitions and ``feature_store.yaml``."""

BUILD = ROOT / "build" / "flights"
"""What training and evaluation leave behind."""
