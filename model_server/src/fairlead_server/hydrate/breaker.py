"""A circuit breaker: after failures in a row a store is left alone, and tried with a single read now and then."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

_FAILURES = 3
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 0.5
_LEAST_SHARE = 0.5


class Circuit(StrEnum):
    """What a breaker lets through."""

    CLOSED = "closed"
    """Everything."""
    OPEN = "open"
    """Nothing."""
    HALF_OPEN = "half_open"
    """One read, made to find out."""


class Breaker:
    """Counts failures in a row and says how long to wait before the next attempt."""

    def __init__(self, share: Callable[[], float], note: Callable[[Circuit], None]) -> None:
        """Start closed.

        Args:
            share: Gives a number of [0, 1), by which pauses vary, so that servers do not come back together.
            note: Told of each change.
        """
        self._share = share
        self._note = note
        self._failures = 0
        self._pause_s = _FIRST_PAUSE_S
        self.circuit = Circuit.CLOSED

    def succeeded(self) -> None:
        """Take note of a read that was answered."""
        self._failures = 0
        self._pause_s = _FIRST_PAUSE_S
        self._turn(Circuit.CLOSED)

    def failed(self) -> float | None:
        """Take note of a read that was not.

        Returns:
            Seconds until the next attempt, if reads are now to stop; else None.
        """
        self._failures += 1
        if self._failures < _FAILURES:
            return None
        pause_s = self._pause_s * (_LEAST_SHARE + (1 - _LEAST_SHARE) * self._share())
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._turn(Circuit.OPEN)
        return pause_s

    def tries(self) -> None:
        """Take note that one read is made to find out."""
        self._turn(Circuit.HALF_OPEN)

    def _turn(self, circuit: Circuit) -> None:
        if circuit is not self.circuit:
            self.circuit = circuit
            self._note(circuit)
