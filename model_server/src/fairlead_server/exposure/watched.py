"""A file that somebody else writes, and a running server reads again when it changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

_LOG = logging.getLogger(__name__)
_CHECK_INTERVAL_S = 1.0
_T = TypeVar("_T")


class WatchedFile(Generic[_T]):
    """What a file says; looked at once a second at most, when it is asked for."""

    def __init__(
        self,
        path: Path | None,
        parse: Callable[[bytes], _T],
        absent: _T,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch a file, which need not be there.

        Args:
            path: The file; None for one that will never be there.
            parse: Reads its content; raises ValueError if it is not valid, with a message that has no secret.
            absent: What is said without a file.
            monotonic_s: Seconds that never go back, for the interval between looks.
        """
        self._path = path
        self._parse = parse
        self._absent = absent
        self._monotonic_s = monotonic_s
        self._said = absent
        self._version = 0
        self._seen: tuple[int, int, int] | None = None
        self._next_look_s = float("-inf")

    @property
    def version(self) -> int:
        """Grows whenever :meth:`current` comes to say something else; what was derived before is then out of date."""
        return self._version

    def current(self) -> _T:
        """Return what the file says; what it said last if it is not valid now, ``absent`` if it is gone."""
        if self._path is not None:
            now_s = self._monotonic_s()
            if now_s >= self._next_look_s:
                self._next_look_s = now_s + _CHECK_INTERVAL_S
                self._look(self._path)
        return self._said

    def _look(self, path: Path) -> None:
        try:
            status = path.stat()
        except OSError:
            if self._seen is not None:
                self._seen = None
                self._say(self._absent)
                _LOG.info("file gone file=%s", path.name)
            return
        seen = (status.st_mtime_ns, status.st_ino, status.st_size)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            said = self._parse(path.read_bytes())
        except (OSError, ValueError) as error:
            _LOG.warning("file not read file=%s error=%s", path.name, error)
            return
        self._say(said)
        _LOG.info("file read file=%s", path.name)

    def _say(self, said: _T) -> None:
        self._said = said
        self._version += 1
