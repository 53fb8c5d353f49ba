"""A gateway's log of unanswered requests on one machine: read from a file, told once.

A line is read once: what is about to be told is remembered first, so that it is told again under the same sequence
after any end, and the ledger counts it once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fairlead.feedback.keys import KeyRing
from fairlead.feedback.messages import MOST_EXPOSURES, ExposureReport
from fairlead.route import RouteKey
from fairlead_operator.platforms.local.state import write_whole
from fairlead_operator.platforms.unanswered import read_line, report_of

MOST_BYTES = 4 * 2**20
"""Of the log read at once."""
_MOST_LOG_BYTES = 64 * 2**20


class Position(BaseModel):
    """How far a log has been told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: str
    """Who tells: names the log, anew when it begins anew."""
    sequence: int = Field(default=0, ge=0)
    """Of the next report."""
    start: int = Field(default=0, ge=0)
    """Bytes told before it."""
    end: int | None = None
    """Where the report that is being told ends, in bytes; None if none is."""


class UnansweredLog:
    """A gateway's log of unanswered requests, and how far it has been told."""

    def __init__(self, log: Path, *, key: RouteKey, root: KeyRing, new_id: Callable[[], str]) -> None:
        """Take up where the last run ended.

        Args:
            log: What the gateway writes; beside it, what is remembered.
            key: Signs experiment headers.
            root: The root ring.
            new_id: Makes a name that was never given before.
        """
        self._log = log
        self._key = key
        self._root = root
        self._new_id = new_id
        self._file = log.with_suffix(".told.json")
        self._position = self._remembered() or self._begun()

    def begin_anew_if_large(self) -> None:
        """Empty a large log that has been told whole; nobody may be writing it."""
        size = self._log.stat().st_size if self._log.exists() else 0
        if size > _MOST_LOG_BYTES and self._position.end is None and size == self._position.start:
            self._log.unlink()
            self._write(Position(server=self._new_id()))

    def next_report(self, now_us: int) -> ExposureReport | None:
        """Return what is to be told now; None if there is nothing. It is the same one until :meth:`told`."""
        position = self._position
        lines = self._lines(position)
        if not lines:
            return None
        end = position.start + sum(map(len, lines))
        if position.end is None:
            self._write(position.model_copy(update={"end": end}))
        known = {self._key.id: self._key}
        requests = [request for line in lines if (request := read_line(line, known)) is not None]
        return report_of(requests, self._root.of, server=position.server, sequence=position.sequence, now_us=now_us)

    def told(self) -> None:
        """Note that the ledger has taken the report."""
        position = self._position
        if position.end is not None:
            self._write(Position(server=position.server, sequence=position.sequence + 1, start=position.end))

    def _lines(self, position: Position) -> list[bytes]:
        """Return whole lines from where the log was told: those of the report under way, or as many as fit one."""
        try:
            with self._log.open("rb") as log:
                log.seek(position.start)
                read = log.read(MOST_BYTES if position.end is None else position.end - position.start)
        except FileNotFoundError:
            return []
        lines = read[: read.rfind(b"\n") + 1].splitlines(keepends=True)
        return lines if position.end is not None else lines[:MOST_EXPOSURES]

    def _remembered(self) -> Position | None:
        try:
            return Position.model_validate_json(self._file.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def _begun(self) -> Position:
        """Begin at the log's end: what of it was told is not known, and nothing may be told twice."""
        size = self._log.stat().st_size if self._log.exists() else 0
        self._write(Position(server=self._new_id(), start=size))
        return self._position

    def _write(self, position: Position) -> None:
        write_whole(self._file, position.model_dump_json())
        self._position = position
