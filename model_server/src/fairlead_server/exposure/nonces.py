"""Random bytes, asked of the system by the page: a call of it for each request would cost more than the token."""

from __future__ import annotations

import os
from collections.abc import Callable

_PAGE_BYTES = 4096


class Nonces:
    """Gives random bytes, none twice."""

    __slots__ = ("_at", "_page", "_random")

    def __init__(self, random: Callable[[int], bytes] = os.urandom) -> None:
        """Take them from ``random``."""
        self._random = random
        self._page = b""
        self._at = 0

    def __call__(self, size: int) -> bytes:
        """Return ``size`` random bytes."""
        at, end = self._at, self._at + size
        if end > len(self._page):
            self._page = self._random(max(_PAGE_BYTES, size))
            at, end = 0, size
        self._at = end
        return self._page[at:end]
