"""Host processes of a cluster, known by pid and start time, so that nothing else is ever signalled."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from errors import ClusterError
from layout import Layout

_POLL_S = 0.05
_LOG_LINES = 12


@dataclass(frozen=True, slots=True)
class Process:
    """A process that was seen at some time."""

    pid: int
    start: int
    """When it started, in clock ticks since boot."""

    @property
    def alive(self) -> bool:
        """Whether that very process still runs (a zombie does not)."""
        return _started(self.pid) == self.start

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process is gone."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Processes:
    """The processes of one cluster, recorded as files."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def start(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start a program unless it runs; its output goes to ``log/<name>.log``."""
        if self.alive(name):
            return
        self._layout.logs.mkdir(parents=True, exist_ok=True)
        self._layout.pids.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=self._layout.state,
                env={"PATH": os.environ["PATH"], "HOME": str(self._layout.run), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        record = {"pid": process.pid, "start": _started(process.pid)}
        self._record(name).write_text(json.dumps(record))

    def alive(self, name: str) -> bool:
        """Return whether a program of that name was started and runs."""
        process = self._read(name)
        return process is not None and process.alive

    def wait(self, name: str, condition: Callable[[], bool], *, timeout_s: float = 60) -> None:
        """Wait until a program is as wanted.

        Raises:
            ClusterError: It ended, or the time is over.
        """
        end = time.monotonic() + timeout_s
        while not condition():
            if not self.alive(name):
                raise ClusterError(f"{name} ended; the end of {self.log(name)}:\n{self._tail(name)}")
            if time.monotonic() > end:
                raise ClusterError(
                    f"{name} was not ready in {timeout_s:.0f} s; see {self.log(name)}:\n{self._tail(name)}"
                )
            time.sleep(_POLL_S)

    def names(self) -> list[str]:
        """Return the names of all recorded programs."""
        return sorted(path.stem for path in self._layout.pids.glob("*.json"))

    def stop(self, names: Iterable[str], *, timeout_s: float = 5) -> None:
        """Ask programs to end, all at once, and end those that did not in time."""
        processes = {name: process for name in names if (process := self._read(name))}
        for process in processes.values():
            process.signal(signal.SIGTERM)
        end(processes.values(), timeout_s=timeout_s)
        for name in processes:
            self._record(name).unlink(missing_ok=True)

    def log(self, name: str) -> Path:
        """Return the path of a program's log."""
        return self._layout.logs / f"{name}.log"

    def _record(self, name: str) -> Path:
        return self._layout.pids / f"{name}.json"

    def _read(self, name: str) -> Process | None:
        try:
            return Process(**json.loads(self._record(name).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _tail(self, name: str) -> str:
        return "\n".join(self.log(name).read_text("utf-8", "replace").splitlines()[-_LOG_LINES:])


def seen(pid: int) -> Process | None:
    """Return the process that has this pid now."""
    start = _started(pid)
    return None if start is None else Process(pid, start)


def end(processes: Iterable[Process], *, timeout_s: float) -> None:
    """Wait for processes to end; kill those that have not in time, and wait for those."""
    left = list(processes)
    deadline = time.monotonic() + timeout_s
    while left := [p for p in left if p.alive]:
        if time.monotonic() > deadline:
            for process in left:
                process.signal(signal.SIGKILL)
        time.sleep(_POLL_S)


def _started(pid: int) -> int | None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may hold anything; fields are counted from behind it.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
