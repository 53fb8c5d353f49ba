"""Brings one model file to its place: verified, in one step, and tried again where that may help."""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fairlead_server.errors import FetchError, FetchInterrupted, FetchRefused
from fairlead_server.fetch.body import Open, Reading
from fairlead_server.fetch.uri import ModelUri

FILE_NAME = "model.onnx"
_PART = f".{FILE_NAME}."
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 8.0
_READABLE = 0o644
"""The server may run as another user than the storage initializer."""

Report = Callable[[int, int | None], None]
"""Told how many bytes are there, and how many there will be if that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """How much, how long, how often."""

    max_bytes: int = 2 * 1024**3
    deadline_s: float = 600.0
    """For everything together."""
    read_deadline_s: float = 30.0
    """For the first bytes and for each next ones."""
    attempts: int = 5


@dataclass(frozen=True, slots=True)
class Fetched:
    """What lies at its place."""

    path: Path
    size_bytes: int
    was_there: bool
    """Whether it lay there already."""


class Fetch:
    """One model file to fetch."""

    def __init__(
        self,
        uri: ModelUri,
        open_source: Open,
        limits: FetchLimits,
        *,
        report: Report = lambda _done, _whole: None,
        retrying: Callable[[FetchError, float], None] = lambda _error, _pause_s: None,
        pause: Callable[[float], None] = time.sleep,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the fetch.

        Args:
            uri: What the file must be.
            open_source: Opens where it comes from.
            limits: Sizes and times.
            report: Told of progress.
            retrying: Told what failed, and after how many seconds it is tried again.
            pause: Waits for some seconds.
            monotonic_s: Seconds that never go back.
        """
        self._uri = uri
        self._open = open_source
        self._limits = limits
        self._report = report
        self._retrying = retrying
        self._pause = pause
        self._monotonic_s = monotonic_s
        self._end_s = monotonic_s() + limits.deadline_s

    def into(self, folder: Path) -> Fetched:
        """Write ``folder/model.onnx``; a file that is there and right is left as it is.

        Raises:
            FetchError: It could not be fetched; the message is one line that names it and says what to do.
        """
        try:
            with _writing():
                folder.mkdir(parents=True, exist_ok=True)
                there = self._already(folder / FILE_NAME)
            return there or self._tried(folder)
        except FetchError as error:
            raise type(error)(f"{self._uri.shown}: {error}") from None

    def _already(self, path: Path) -> Fetched | None:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return Fetched(path, path.stat().st_size, was_there=True) if f"sha256:{found}" == self._uri.digest else None

    def _tried(self, folder: Path) -> Fetched:
        longest_s = _FIRST_PAUSE_S
        for left in reversed(range(self._limits.attempts)):
            try:
                return self._written(folder)
            except FetchInterrupted as error:
                pause_s = random.uniform(longest_s / 2, longest_s)  # noqa: S311 -- jitter is no secret
                longest_s = min(2 * longest_s, _LONGEST_PAUSE_S)
                if not left or self._left_s() <= pause_s:
                    raise FetchInterrupted(f"{error}; given up after {self._tries(left)}") from None
                self._retrying(error, pause_s)
            self._pause(pause_s)
        raise AssertionError("attempts is at least 1")

    def _tries(self, left: int) -> str:
        tries = self._limits.attempts - left
        return f"{tries} attempt{'s' if tries > 1 else ''}"

    def _written(self, folder: Path) -> Fetched:
        """Fetch once."""
        with _writing(), _part(folder) as (file, path):
            size_bytes = self._stream(file)
            os.fchmod(file.fileno(), _READABLE)
            file.flush()
            os.fsync(file.fileno())
            path.replace(folder / FILE_NAME)
            _sync(folder)
        return Fetched(folder / FILE_NAME, size_bytes, was_there=False)

    def _stream(self, file: BinaryIO) -> int:
        reading = Reading(self._open)
        try:
            return self._copied(reading, file)
        finally:
            reading.close()

    def _copied(self, reading: Reading, file: BinaryIO) -> int:
        whole, done, digest = reading.size_bytes(self._wait_s()), 0, hashlib.sha256()
        self._check_size(whole or 0)
        while (chunk := reading.chunk(self._wait_s())) is not None:
            done += len(chunk)
            self._check_size(done)
            digest.update(chunk)
            file.write(chunk)
            self._report(done, whole)
        if whole is not None and done != whole:
            raise FetchInterrupted(f"{done} of {whole} bytes were received")
        if f"sha256:{digest.hexdigest()}" != self._uri.digest:
            raise FetchRefused(
                f"its digest is sha256:{digest.hexdigest()}, not {self._uri.digest}: the file was replaced, or "
                "model.digest is another file's"
            )
        return done

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._limits.max_bytes:
            raise FetchRefused(f"larger than {self._limits.max_bytes} bytes: raise --max-bytes if that is right")

    def _wait_s(self) -> float:
        left_s = self._left_s()
        if left_s <= 0:
            raise FetchInterrupted(f"not complete within {self._limits.deadline_s:g} s")
        return min(self._limits.read_deadline_s, left_s)

    def _left_s(self) -> float:
        return self._end_s - self._monotonic_s()


@contextmanager
def _part(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Make the file that is written to; it is gone afterwards unless it has been renamed."""
    for left_over in folder.glob(f"{_PART}*"):  # of a container that was killed; the folder is this pod's alone
        left_over.unlink(missing_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=_PART, dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def _writing() -> Iterator[None]:
    """Turn what the destination's disk refuses into an error with a fix."""
    try:
        yield
    except OSError as error:
        raise FetchRefused(f"cannot write to {error.filename or 'the disk'}: {error.strerror}") from None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def source_of(uri: ModelUri, limits: FetchLimits, environment: Mapping[str, str]) -> Open:
    """Return what opens ``uri``; only the library that its scheme needs is imported."""
    if uri.scheme == "file":
        from fairlead_server.fetch.volume import open_file  # noqa: PLC0415 -- see above

        return lambda: open_file(uri)
    if uri.scheme in {"http", "https"}:
        from fairlead_server.fetch.web import open_web  # noqa: PLC0415 -- see above

        return lambda: open_web(uri, limits.read_deadline_s)
    from fairlead_server.fetch.stores import open_google, open_s3  # noqa: PLC0415 -- see above

    open_object = open_s3 if uri.scheme == "s3" else open_google
    return lambda: open_object(uri, environment)
