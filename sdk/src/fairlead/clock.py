"""The time, as a parameter.

Code that needs the time takes a ``Clock``. Two exist: the system's, and one that a replay moves. The replayed
clock is eight bytes in a file that one process writes and any number of processes map, so that reading it costs
as little as reading the system's.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT64 = struct.Struct("=q")


class Clock(Protocol):
    """Where the time comes from."""

    def now_us(self) -> int:
        """Return microseconds since 1970-01-01 UTC."""


class SystemClock:
    """The machine's own time."""

    def now_us(self) -> int:
        """Return microseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1000


class ReplayClock:
    """A time that a replay writes with :class:`ReplayClockWriter`; it stands still in between."""

    def __init__(self, path: Path) -> None:
        """Map the clock's file.

        Args:
            path: A file of eight bytes, made by ``ReplayClockWriter``.

        Raises:
            FileNotFoundError: There is no such file.
        """
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), _INT64.size, access=mmap.ACCESS_READ)

    def now_us(self) -> int:
        """Return the simulated microseconds since 1970-01-01 UTC."""
        value: int = _INT64.unpack_from(self._map)[0]
        return value


class ReplayClockWriter:
    """The one hand that moves a replayed clock."""

    def __init__(self, path: Path, start_us: int | None = None) -> None:
        """Open the clock's file, or make it.

        Args:
            path: Where the clock lives; replaced in one step if it is made anew.
            start_us: Time to set, microseconds since 1970-01-01 UTC; None keeps what an existing file says.
        """
        if not path.exists():
            fresh = path.with_name(f"{path.name}.{os.getpid()}")
            fresh.write_bytes(_INT64.pack(start_us or 0))
            fresh.replace(path)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _INT64.size)
        if start_us is not None:
            self.set_us(start_us)

    def set_us(self, time_us: int) -> None:
        """Move the clock to ``time_us`` (microseconds since 1970-01-01 UTC)."""
        _INT64.pack_into(self._map, 0, time_us)


def to_us(moment: datetime) -> int:
    """Return an aware datetime as microseconds since 1970-01-01 UTC."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_us(time_us: int) -> datetime:
    """Return microseconds since 1970-01-01 as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=time_us)
