"""Processes of this machine: started so that they end with us, and known again after we were killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from fairlead_operator.platforms.local import child

_LOG_LIMIT_BYTES = 16 * 2**20
_LEFTOVER_PATIENCE_S = 1.0
_POLL_S = 0.02


class ProcessRecord(BaseModel):
    """A process that we started, such that no other is mistaken for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str = Field(description="Revision, or ``envoy``.")
    pid: int = Field(gt=0)
    started: str = Field(description="When it started, as the system tells it.")


class Process:
    """A child process whose output goes to a log file."""

    def __init__(self, what: str, running: asyncio.subprocess.Process, log: Path, log_offset: int) -> None:
        """Wrap a child that :meth:`start` has started."""
        self._running = running
        self._log = log
        self._log_offset = log_offset
        self.record = ProcessRecord(what=what, pid=running.pid, started=started_at(running.pid) or "")

    @classmethod
    async def start(
        cls, what: str, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
    ) -> Process:
        """Start ``command`` in a session of its own, tied to this thread; call from the main thread.

        Args:
            what: Name of the process in records.
            command: Program and arguments.
            log: File that its output is appended to.
            environment: Its whole environment; None for ours.
        """
        _rotate(log)
        with log.open("ab") as output:
            offset = output.tell()
            running = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", child.__file__, str(os.getpid()), *command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
        return cls(what, running, log, offset)

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet, as far as we have heard."""
        return self._running.returncode is None

    async def wait(self) -> int:
        """Return its exit code once it has ended; negative for a signal."""
        return await self._running.wait()

    async def stop(self, patience_s: float) -> None:
        """End it: SIGTERM, and SIGKILL after ``patience_s`` seconds."""
        if self._signal(signal.SIGTERM):
            try:
                await asyncio.wait_for(asyncio.shield(self._running.wait()), patience_s)
            except TimeoutError:
                await self.kill()

    async def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)
        await self._running.wait()

    def last_words(self) -> str:
        """Return the last line that it wrote since it started; empty if none."""
        with self._log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_offset, end - 4096))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def _signal(self, number: signal.Signals) -> bool:
        if self._running.returncode is None:
            try:
                self._running.send_signal(number)
            except ProcessLookupError:
                return False
            return True
        return False


def started_at(pid: int) -> str | None:
    """Return when process ``pid`` started, in the system's own words; None if there is none (or only its remains)."""
    system = Path("/proc")
    if (system / "self" / "stat").exists():
        try:
            stat = (system / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    told = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return told.stdout.strip() or None


async def end_leftovers(records: Iterable[ProcessRecord]) -> list[ProcessRecord]:
    """End the processes of ``records`` that still run and are truly those; return which."""
    left = [record for record in records if _is_running(record)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for record in filter(_is_running, left):
            os.kill(record.pid, number)
        for _ in range(int(_LEFTOVER_PATIENCE_S / _POLL_S)):
            if not any(map(_is_running, left)):
                break
            await asyncio.sleep(_POLL_S)
    return left


def _is_running(record: ProcessRecord) -> bool:
    return bool(record.started) and started_at(record.pid) == record.started


def _rotate(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
