"""The root of what goes wrong in the flights example; each kind stands beside what raises it."""

from __future__ import annotations


class FlightsError(RuntimeError):
    """A step of the example cannot go on; the message says what to do."""
