"""The embedded ledger: a process of its own on loopback, kept running, its evidence in the state folder."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from fairlead_operator.platforms.local.processes import Process, ProcessRecord
from fairlead_operator.platforms.local.server import Backoff, free_ports

_PROBE_EVERY_S = 0.25
_PROBE_TIMEOUT_S = 2.0
_STEADY_AFTER_S = 30.0
"""Time of a run after which earlier crashes no longer lengthen the pause."""
_STOP_PATIENCE_S = 10.0
_PAUSE = Backoff(0.25, 5.0)
_MOST_FAILED_STARTS = 3
"""Ends before a first readiness after which another port is tried."""


@dataclass(frozen=True, slots=True)
class LedgerTask:
    """What to run."""

    command: Sequence[str]
    """Program and arguments, without the port."""
    log: Path
    silent_s: float = 60.0
    """Time without any answer after which a running process is killed and started again."""
    pause: Backoff = _PAUSE


class LocalLedger:
    """Keeps one ledger process running; what it was told is in its file, whatever ends it."""

    def __init__(self, task: LedgerTask, *, port: int | None, changed: Callable[[], None]) -> None:
        """Describe the ledger; :meth:`run` starts it.

        Args:
            task: What to run.
            port: Where it listened last, kept if it is free; None chooses one.
            changed: Called when its process, its readiness or its address has changed.
        """
        self._task = task
        self._changed = changed
        self._process: Process | None = None
        self._is_ready = False
        self._is_starting = True
        self.port = port if port is not None and _is_free(port) else free_ports(1)[0]
        """Where it listens."""

    @property
    def url(self) -> str:
        """Its address, without a final slash."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_ready(self) -> bool:
        """Whether it answers."""
        return self._is_ready and self._process is not None and self._process.alive

    @property
    def is_starting(self) -> bool:
        """Whether its first process has neither answered nor ended yet."""
        return self._is_starting

    @property
    def record(self) -> ProcessRecord | None:
        """Its running process; None between two."""
        return self._process.record if self._process and self._process.alive else None

    async def run(self) -> None:
        """Keep it running until this task is cancelled."""
        crashes = failed_starts = 0
        while True:
            started = time.monotonic()
            was_ready = await self._run_once()
            self._is_starting = False
            crashes = 1 if time.monotonic() - started > _STEADY_AFTER_S else crashes + 1
            failed_starts = 0 if was_ready else failed_starts + 1
            if failed_starts >= _MOST_FAILED_STARTS and not _is_free(self.port):
                self.port, failed_starts = free_ports(1)[0], 0
            self._changed()
            await asyncio.sleep(self._task.pause.pause_s(crashes))

    async def stop(self) -> None:
        """End it, letting it finish what it was told; it must not be running any more."""
        if self._process is not None:
            await self._process.stop(_STOP_PATIENCE_S)
        self._is_ready = False

    async def _run_once(self) -> bool:
        """Run one process to its end; return whether it was ever ready."""
        address = ("--host", "127.0.0.1", "--port", str(self.port))
        self._is_ready = False
        self._process = process = await Process.start("ledger", [*self._task.command, *address], log=self._task.log)
        self._changed()
        probing = asyncio.create_task(self._probe(process))
        try:
            await process.wait()
        finally:
            probing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await probing
        was_ready, self._is_ready = self._is_ready, False
        return was_ready

    async def _probe(self, process: Process) -> None:
        answered = time.monotonic()
        async with httpx.AsyncClient(base_url=self.url, timeout=_PROBE_TIMEOUT_S, trust_env=False) as client:
            while process.alive:
                try:
                    good = (await client.get("/readyz")).is_success
                    answered = time.monotonic()
                except httpx.HTTPError:
                    good = self._is_ready and time.monotonic() - answered < _PROBE_TIMEOUT_S * 2
                if good is not self._is_ready:
                    self._is_ready = good
                    self._is_starting = False
                    self._changed()
                if time.monotonic() - answered >= self._task.silent_s:
                    await process.kill()
                await asyncio.sleep(_PROBE_EVERY_S if not self._is_ready else _PROBE_EVERY_S * 4)


def _is_free(port: int) -> bool:
    try:
        with contextlib.closing(socket.create_server(("127.0.0.1", port))):
            return True
    except OSError:
        return False
