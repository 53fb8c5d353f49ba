"""The folder of the prediction log: files that are whole or not there, the oldest of them removed beyond a size.

Names begin with the time of a file's first row, so that they sort by time over all models and processes that share
the folder. Two processes that remove the oldest file at once do no harm.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from fairlead.prediction_log import SUFFIX, UNFINISHED

_COMPRESSION = "zstd"


class LogFolder:
    """Writes the files of one model; blocks on the disk, so that it is for a thread."""

    def __init__(self, folder: Path, model: str, limit_bytes: int, process: str) -> None:
        """Make the folder's writer; the folder is made when something is written.

        Args:
            folder: Of the log, which other models and processes may share.
            model: Name of the model's folder in it.
            limit_bytes: Size of all files of the log beyond which the oldest are removed.
            process: Tells this process' files from those of others.
        """
        self._folder = folder
        self._of_model = folder / _folder_name(model)
        self._limit_bytes = limit_bytes
        self._process = process
        self._numbers = count()

    def write(self, batches: Sequence[pa.RecordBatch], first_us: int) -> int:
        """Write a file, and return how many old ones had to be removed for it.

        Args:
            batches: What is written, at least one.
            first_us: Time of the first row, microseconds since 1970.

        Raises:
            OSError: It could not be written; nothing of it is left.
        """
        moment = datetime.fromtimestamp(first_us / 1e6, UTC)
        path = self._of_model / f"{moment:%Y%m%dT%H%M%S.%fZ}-{self._process}-{next(self._numbers)}{SUFFIX}"
        unfinished = path.with_name(f"{path.name}{UNFINISHED}")
        for folder in (self._folder, self._of_model):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with unfinished.open("wb") as file:
                pq.write_table(pa.Table.from_batches(batches), file, compression=_COMPRESSION)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
        return self._remove_oldest(path)

    def _remove_oldest(self, newest: Path) -> int:
        """Remove files until the log is small enough; what a process that was killed has begun is such a file, too."""
        sizes: dict[Path, int] = {}
        for ending in (SUFFIX, f"{SUFFIX}{UNFINISHED}"):
            for path in self._folder.glob(f"*/*{ending}"):
                with suppress(FileNotFoundError):
                    sizes[path] = path.stat().st_size
        total, removed = sum(sizes.values()), 0
        for path in sorted(sizes, key=lambda one: one.name):
            if total <= self._limit_bytes:
                break
            if path != newest:
                path.unlink(missing_ok=True)
                total -= sizes[path]
                removed += 1
        return removed


def _folder_name(model: str) -> str:
    """Return a name that is one folder's, whatever a model is called."""
    name = quote(model, safe=" ")
    return f"%2E{name[1:]}" if name.startswith(".") else name
