"""Model files on a mounted volume."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from fairlead_server.errors import FetchInterrupted, FetchRefused
from fairlead_server.fetch.body import CHUNK_BYTES, Body
from fairlead_server.fetch.uri import ModelUri

_FINAL = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)


@contextmanager
def open_file(uri: ModelUri) -> Iterator[Body]:
    """Open a file.

    Raises:
        FetchError: It is not there or may not be read (refused), or reading fails (interrupted).
    """
    path = Path(uri.place)
    try:
        with path.open("rb") as file:
            yield Body(path.stat().st_size, iter(partial(file.read, CHUNK_BYTES), b""))
    except OSError as error:
        if isinstance(error, _FINAL) or error.errno == errno.ENAMETOOLONG:
            raise FetchRefused(f"{error.strerror}: check the path and the volume's mount") from None
        raise FetchInterrupted(f"cannot be read ({error.strerror}): check the volume") from None
