"""What the log's thread does: encode what it is handed, and write a file now and then."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from fairlead_server.prediction_log.encode import Encoder
from fairlead_server.prediction_log.folder import LogFolder
from fairlead_server.prediction_log.record import Record

_LOG = logging.getLogger(__name__)
_MOST_BYTES = 32 * 1024**2
"""Size in memory at which a file is written; compressed it is a fraction of that."""
_FILES_IN_LIMIT = 8
"""A log has room for so many files at least."""


class Done(NamedTuple):
    """What became of what the thread was handed."""

    written_rows: int = 0
    failed_rows: int = 0
    removed_files: int = 0


class Writing:
    """Collects encoded rows, and writes them to files; for one thread alone."""

    def __init__(self, encoder: Encoder, folder: LogFolder, limit_bytes: int) -> None:
        """Start with nothing collected.

        Args:
            encoder: Of the model.
            folder: Where files go.
            limit_bytes: Of the whole log; one file is at most a part of it.
        """
        self._encoder = encoder
        self._folder = folder
        self._most_bytes = min(_MOST_BYTES, max(1, limit_bytes // _FILES_IN_LIMIT))
        self._batches: list[pa.RecordBatch] = []
        self._size_bytes = 0
        self._first_us = 0
        self._trouble = ""

    def add(self, records: Sequence[Record]) -> Done:
        """Collect requests, and write a file if there is enough for one."""
        batch = self._encoder.batch(records)
        if not self._batches:
            self._first_us = records[0].at_us
        self._batches.append(batch)
        self._size_bytes += batch.nbytes
        return self.roll() if self._size_bytes >= self._most_bytes else Done()

    def roll(self) -> Done:
        """Write what was collected; if that fails it is lost, for a disk that is full would fill memory next."""
        batches, self._batches, self._size_bytes = self._batches, [], 0
        if not batches:
            return Done()
        rows = sum(batch.num_rows for batch in batches)
        try:
            removed = self._folder.write(batches, self._first_us)
        except OSError as error:
            if str(error.strerror) != self._trouble:
                _LOG.warning("prediction log cannot be written error=%s rows=%d", error.strerror, rows)
            self._trouble = str(error.strerror)
            return Done(failed_rows=rows)
        self._trouble = ""
        return Done(written_rows=rows, removed_files=removed)
