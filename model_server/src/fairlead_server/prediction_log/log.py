"""The prediction log of one model, as the event loop sees it: takes references, and hands them to a thread."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from fairlead_server.errors import RequestError
from fairlead_server.hydrate.thread import WorkerThread
from fairlead_server.metrics import LogOutcome, ModelMetrics
from fairlead_server.predict.request import PredictResponse
from fairlead_server.prediction_log.encode import Encoder
from fairlead_server.prediction_log.folder import LogFolder
from fairlead_server.prediction_log.record import Columns, Record, owned
from fairlead_server.prediction_log.sample import Sample
from fairlead_server.prediction_log.settings import Logged, LogSettings
from fairlead_server.prediction_log.writing import Done, Writing

if TYPE_CHECKING:
    from fairlead_server.hydrate.hydrator import Hydrated  # imports feast

_LOG = logging.getLogger(__name__)
_RECORDS_AT_ONCE = 32
"""So many are encoded in one go: the thread holds the interpreter for less than a millisecond."""
_HAND_OVER_S = 0.25
"""Longest time until a request that was taken is handed over."""
_CLOSE_S = 5.0
"""Longest wait for the last file."""

Answered = Callable[[PredictResponse | RequestError], None]


class Writer(Protocol):
    """What the thread does; see ``writing.Writing``."""

    def add(self, records: list[Record]) -> Done:
        """Collect requests."""

    def roll(self) -> Done:
        """Write what was collected."""


class PredictionLog:
    """Samples the hydrated requests of one model."""

    def __init__(self, settings: LogSettings, sample: Sample, writer: Writer, metrics: ModelMetrics) -> None:
        """Make the log.

        Args:
            settings: How much may wait, and how long.
            sample: Which requests are logged.
            writer: What writes them, in the log's own thread.
            metrics: Where rows are counted.
        """
        self._settings = settings
        self._writer = writer
        self._metrics = metrics
        self._records: list[Record] = []
        self._waiting_rows = 0
        """Rows of ``_records``, and of those that the thread has not encoded."""
        self._thread = WorkerThread("prediction-log")
        self._hand_over: asyncio.TimerHandle | None = None
        self._roll: asyncio.TimerHandle | None = None
        self._closed = False
        self.takes = sample.takes
        """Return whether the next request is logged."""

    @classmethod
    def of(cls, settings: LogSettings, logged: Logged, metrics: ModelMetrics) -> PredictionLog:
        """Return the log of a model."""
        folder = LogFolder(settings.folder, logged.model, settings.limit_bytes, os.urandom(4).hex())
        encoder = Encoder(logged, with_keys=settings.with_keys)
        sample = Sample(settings.sample, random.SystemRandom().random)
        _LOG.info("prediction log model=%s sample=%g folder=%s", logged.model, settings.sample, settings.folder)
        return cls(settings, sample, Writing(encoder, folder, settings.limit_bytes), metrics)

    def recording(self, keys: Columns, rows: int, hydrated: Hydrated, done: Answered) -> Answered:
        """Return what answers a request that was taken, and logs it afterwards.

        Args:
            keys: Join keys and request features, shape [rows], by name.
            rows: Number of rows.
            hydrated: What was found for them.
            done: Answers the request.
        """
        return partial(self._answer, keys, rows, hydrated, done)

    def _answer(
        self, keys: Columns, rows: int, hydrated: Hydrated, done: Answered, outcome: PredictResponse | RequestError
    ) -> None:
        done(outcome)
        if isinstance(outcome, RequestError):
            return
        if self._waiting_rows + rows > self._settings.most_waiting_rows:
            self._metrics.count_logged(LogOutcome.DROPPED, rows)
            return
        features, outputs = owned(hydrated.columns), owned(outcome.outputs)
        self._add(Record(hydrated.at_us, rows, owned(keys), features, hydrated.states, hydrated.event_us(), outputs))

    def _add(self, record: Record) -> None:
        self._records.append(record)
        self._waiting_rows += record.rows
        if len(self._records) >= _RECORDS_AT_ONCE:
            self._pass_on()
        elif self._hand_over is None:
            self._hand_over = asyncio.get_running_loop().call_later(_HAND_OVER_S, self._pass_on)

    def _pass_on(self) -> None:
        """Hand over what was taken."""
        if self._hand_over is not None:
            self._hand_over.cancel()
            self._hand_over = None
        if not self._records:
            return
        records, self._records = self._records, []
        rows = sum(record.rows for record in records)
        self._submit(partial(self._writer.add, records), rows)
        if self._roll is None:
            self._roll = asyncio.get_running_loop().call_later(self._settings.roll_s, self._write)

    def _write(self) -> None:
        self._roll = None
        self._submit(self._writer.roll, 0)

    def _submit(self, work: Callable[[], Done], rows: int) -> asyncio.Future[Done]:
        future = self._thread.submit(work)
        future.add_done_callback(partial(self._note, rows))
        return future

    def _note(self, rows: int, future: asyncio.Future[Done]) -> None:
        self._waiting_rows -= rows
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            _LOG.error("prediction log failed error=%s rows=%d", type(error).__name__, rows, exc_info=error)
            self._metrics.count_logged(LogOutcome.FAILED, rows)
            return
        done = future.result()
        self._metrics.count_logged(LogOutcome.WRITTEN, done.written_rows)
        self._metrics.count_logged(LogOutcome.FAILED, done.failed_rows)
        self._metrics.count_removed_log_files(done.removed_files)

    async def close(self) -> None:
        """Write what is left, and end the thread; a disk that hangs is left behind."""
        if self._closed:
            return
        self._closed = True
        self._pass_on()
        if self._roll is not None:
            self._roll.cancel()
            self._roll = None
        await asyncio.wait({self._submit(self._writer.roll, 0)}, timeout=_CLOSE_S)
        self._thread.close()
