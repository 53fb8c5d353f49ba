"""How many bytes connections hold: of messages that are not whole yet, and of answers that are not sent yet."""

from __future__ import annotations


class Budget:
    """What all connections of a process may hold together."""

    __slots__ = ("held", "limit")

    def __init__(self, limit: int) -> None:
        """Allow ``limit`` bytes."""
        self.limit = limit
        self.held = 0


class Account:
    """What one connection holds, within the process' budget."""

    __slots__ = ("_budget", "_held", "_limit")

    def __init__(self, limit: int, budget: Budget) -> None:
        """Allow ``limit`` bytes of ``budget``."""
        self._limit = limit
        self._budget = budget
        self._held = 0

    def claim(self, size_bytes: int) -> bool:
        """Take room; False, and nothing is taken, if there is none."""
        if self._held + size_bytes > self._limit or self._budget.held + size_bytes > self._budget.limit:
            return False
        self._held += size_bytes
        self._budget.held += size_bytes
        return True

    def release(self, size_bytes: int) -> None:
        """Give room back."""
        self._held -= size_bytes
        self._budget.held -= size_bytes

    def close(self) -> None:
        """Give everything back."""
        self.release(self._held)
