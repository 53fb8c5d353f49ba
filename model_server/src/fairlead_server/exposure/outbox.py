"""Reports that the ledger has not taken yet: in a folder, so that they outlive the process, or else in memory.

Every report is a file of its own, written under another name and then renamed, so that it is there whole or not at
all. Names sort by time; a process sends what earlier ones in its folder have left. Two processes in one folder do no
harm: both may send a report, which the ledger then counts once.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_SUFFIX = ".json.gz"
_UNFINISHED = ".part"
DISK_BLOCK_BYTES = 4096
"""What a file takes at least; sizes on the disk are counted in it."""
MOST_IN_MEMORY_BYTES = 8 * 1024**2
"""Room without a folder, or while it cannot be written."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One report that waits."""

    name: str
    size_bytes: int
    body: bytes | None
    """None if it is in the folder."""


class Outbox:
    """Keeps reports in order, up to a size; blocks on the disk, so that it is for a thread."""

    def __init__(self, folder: Path | None, limit_bytes: int) -> None:
        """Open the outbox; what the folder has is waiting.

        Args:
            folder: Where reports are kept; made if missing. None for memory alone.
            limit_bytes: Size of all that waits beyond which nothing is taken.
        """
        self._folder = folder
        self._limit_bytes = limit_bytes if folder else min(limit_bytes, MOST_IN_MEMORY_BYTES)
        self._waiting: deque[Parcel] = deque()
        self._size_bytes = 0
        self._in_memory_bytes = 0
        self._trouble = ""
        self.disk_failures = 0
        """How often the folder could not be written or read."""
        if folder is not None:
            self._try("open", partial(self._open, folder))

    @property
    def size_bytes(self) -> int:
        """Size of all that waits."""
        return self._size_bytes

    def __len__(self) -> int:
        """Return how many reports wait."""
        return len(self._waiting)

    def add(self, name: str, body: bytes) -> bool:
        """Keep a report, and return whether there was room for it.

        Args:
            name: Sorts after those that were added before; letters, digits and dashes.
            body: What is sent.
        """
        size_bytes = len(body) if self._folder is None else _on_disk(len(body))
        if self._size_bytes + size_bytes > self._limit_bytes:
            return False
        if self._folder is not None and self._try("write", partial(_written, self._folder / f"{name}{_SUFFIX}", body)):
            self._append(Parcel(name, size_bytes, None))
            return True
        if self._in_memory_bytes + len(body) > MOST_IN_MEMORY_BYTES:
            return False
        self._in_memory_bytes += len(body)
        self._append(Parcel(name, len(body), body))
        return True

    def first(self) -> tuple[Parcel, bytes] | None:
        """Return the report that is to be sent next, with its body; None if none waits."""
        while self._waiting:
            parcel = self._waiting[0]
            body = self._read(parcel) if parcel.body is None else parcel.body
            if body is not None:
                return parcel, body
            self.remove(parcel)
        return None

    def remove(self, parcel: Parcel) -> None:
        """Forget a report: it was taken, or never will be."""
        self._waiting.remove(parcel)
        self._size_bytes -= parcel.size_bytes
        if parcel.body is not None:
            self._in_memory_bytes -= parcel.size_bytes
        elif self._folder is not None:
            self._try("remove", partial((self._folder / f"{parcel.name}{_SUFFIX}").unlink, missing_ok=True))

    def postpone(self, parcel: Parcel) -> None:
        """Send a report after all others: it may be the one that the ledger fails on."""
        self._waiting.remove(parcel)
        self._waiting.append(parcel)

    def _open(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            self._append(Parcel(path.name.removesuffix(_SUFFIX), _on_disk(path.stat().st_size), None))
        for path in folder.glob(f"*{_UNFINISHED}"):
            path.unlink(missing_ok=True)

    def _append(self, parcel: Parcel) -> None:
        self._waiting.append(parcel)
        self._size_bytes += parcel.size_bytes

    def _read(self, parcel: Parcel) -> bytes | None:
        if self._folder is None:
            return None
        path = self._folder / f"{parcel.name}{_SUFFIX}"
        return self._try("read", path.read_bytes) if path.exists() else None  # else another process has sent it

    def _try(self, what: str, touch: Callable[[], _T]) -> _T | None:
        """Do something with the disk; None if it fails, which is counted."""
        try:
            done = touch()
        except OSError as error:
            self.disk_failures += 1
            trouble = f"what={what} error={error.strerror}"
            if trouble != self._trouble:
                _LOG.warning("spool failed %s", trouble)
            self._trouble = trouble
            return None
        self._trouble = ""
        return done


def _on_disk(size_bytes: int) -> int:
    return -(-size_bytes // DISK_BLOCK_BYTES) * DISK_BLOCK_BYTES


def _written(path: Path, body: bytes) -> bool:
    unfinished = path.with_name(f"{path.name}{_UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    return True
