"""A model file on its way: size and bytes, read in a thread so that every wait has an end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from queue import Empty, Queue

from fairlead_server.errors import FetchInterrupted

CHUNK_BYTES = 8 * 1024**2
"""What is read at a time: one request each of an object store, four of them in memory."""
_CHUNKS_AHEAD = 3


@dataclass(frozen=True, slots=True)
class Body:
    """What a source gives."""

    size_bytes: int | None
    """As the source declares it; None if it does not."""
    chunks: Iterator[bytes]


Open = Callable[[], AbstractContextManager[Body]]
"""Opens a source; raises ``FetchError``, as its chunks do."""


class Reading:
    """Reads a source in a thread: libraries of object stores have no deadline for one read (and disks none at all)."""

    def __init__(self, open_source: Open) -> None:
        """Start reading; :meth:`close` must be called."""
        self._open = open_source
        self._found: Queue[int | bytes | BaseException | None] = Queue(_CHUNKS_AHEAD)
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="fetch", daemon=True).start()

    def size_bytes(self, timeout_s: float) -> int | None:
        """Return the declared size; must be called first, once.

        Raises:
            FetchError: The source cannot be read, or nothing came within ``timeout_s``.
        """
        found = self._next(timeout_s)
        return found if isinstance(found, int) and found >= 0 else None

    def chunk(self, timeout_s: float) -> bytes | None:
        """Return the next bytes; None at the end.

        Raises:
            FetchError: The source cannot be read, or nothing came within ``timeout_s``.
        """
        found = self._next(timeout_s)
        return found if isinstance(found, bytes) else None

    def close(self) -> None:
        """Let the thread end, as soon as what it waits for returns."""
        self._closed.set()
        while True:  # a thread that waits for room finds it, and then that it is not wanted any more
            try:
                self._found.get_nowait()
            except Empty:
                return

    def _next(self, timeout_s: float) -> int | bytes | None:
        try:
            found = self._found.get(timeout=max(timeout_s, 0.0))
        except Empty:
            raise FetchInterrupted(f"nothing was received for {timeout_s:.0f} s") from None
        if isinstance(found, BaseException):
            raise found
        return found

    def _run(self) -> None:
        try:
            with self._open() as body:
                self._found.put(-1 if body.size_bytes is None else body.size_bytes)
                for chunk in body.chunks:
                    self._found.put(chunk)
                    if self._closed.is_set():
                        return
            self._found.put(None)
        except BaseException as error:  # noqa: BLE001 -- raised where the bytes are waited for
            self._found.put(error)
