"""What keeps features from being compared."""

from __future__ import annotations


class SkewError(Exception):
    """A log or a feature store that was named cannot be used; the message names it, and the fix."""

    exit_code = 2
    """``fairlead.cli.errors.USAGE``; 1 says that features differ."""
