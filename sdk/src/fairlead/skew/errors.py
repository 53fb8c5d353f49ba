"""What keeps features from being compared."""

from __future__ import annotations


class SkewError(Exception):
    """A log or a feature store that was named cannot be used; the message names it, and the fix."""

    exit_code = 2
    """``fairlead.cli.errors.USAGE``; 1 says that features differ."""


def said(error: Exception) -> str:
    """Return an error's kind and the first line of what it says."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
