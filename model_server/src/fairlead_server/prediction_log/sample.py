"""Chooses which requests are logged."""

from __future__ import annotations

import math
from collections.abc import Callable


class Sample:
    """Takes each request with the same probability, whatever was taken before.

    How many are left out until the next is drawn when one is taken, so that a request that is left out costs a
    subtraction.
    """

    __slots__ = ("_chance", "_log_left_out", "_to_leave_out")

    def __init__(self, rate: float, chance: Callable[[], float]) -> None:
        """Start a sample.

        Args:
            rate: Share of the requests that are taken, above 0 and at most 1.
            chance: Gives numbers between 0 (included) and 1 (excluded).
        """
        self._chance = chance
        self._log_left_out = -math.inf if rate >= 1 else math.log1p(-rate)
        self._to_leave_out = self._drawn()

    def takes(self) -> bool:
        """Return whether the next request is taken."""
        if self._to_leave_out:
            self._to_leave_out -= 1
            return False
        self._to_leave_out = self._drawn()
        return True

    def _drawn(self) -> int:
        return int(math.log1p(-self._chance()) / self._log_left_out)
