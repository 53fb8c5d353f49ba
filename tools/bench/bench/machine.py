"""What processes and CPUs have done, from ``/proc``."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SERVER_CPU, LOAD_CPU = 0, 1
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PARENT, _USER, _SYSTEM, _BEGAN = 1, 11, 12, 19  # fields of /proc/PID/stat behind the name


@dataclass(frozen=True, slots=True)
class Moment:
    """The machine at one moment."""

    at_s: float
    busy_s: float
    """CPU seconds that both CPUs were busy so far, stolen ones included."""
    tree_s: float
    """CPU seconds of one tree of processes so far."""

    @classmethod
    def of(cls, pid: int) -> Moment:
        """Look at the machine, and at the tree below ``pid``."""
        return cls(time.monotonic(), busy_s(Path("/proc/stat").read_text()), cpu_s(pid))


def tree(pid: int) -> list[int]:
    """Return ``pid`` and all processes below it."""
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            children[int(fields[_PARENT])].append(int(folder.name))
    found = [pid]
    for one in found:
        found.extend(children[one])
    return found


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that the tree below ``pid`` has used, user and system."""
    return sum(own_cpu_s(one) for one in tree(pid))


def own_cpu_s(pid: int) -> float:
    """Return the CPU seconds that one process has used, all its threads together; 0 for one that has ended."""
    fields = _stat(pid)
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / TICKS_PER_S if fields else 0.0


def busy_s(stat: str) -> float:
    """Return the seconds for which the CPUs of server and load were busy, from the text of ``/proc/stat``."""
    ticks = 0
    for line in stat.splitlines():
        name, _, numbers = line.partition(" ")
        if name in {f"cpu{SERVER_CPU}", f"cpu{LOAD_CPU}"}:
            user, nice, system, _, _, *interrupts = (int(number) for number in numbers.split()[:8])
            ticks += user + nice + system + sum(interrupts)
    return ticks / TICKS_PER_S


def rss_mib(pid: int) -> float:
    """Return the resident memory of the tree below ``pid``, pages that are shared counted in each."""
    kib = 0
    for one in tree(pid):
        with suppress(OSError):
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    kib += int(line.split()[1])
    return kib / 1024


def be_nice(niceness: int) -> None:
    """Make this process, and all that it starts, so nice; where Linux groups by sessions, this session too."""
    os.nice(niceness)
    be_as_nice(os.getpid())


def be_as_nice(pid: int) -> None:
    """Make the session that ``pid`` has begun as nice as this process: within its group alone niceness says nothing."""
    if niceness := os.getpriority(os.PRIO_PROCESS, 0):
        with suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text(str(niceness))


def began(pid: int) -> str | None:
    """Return when a process began, in ticks since the machine did: it tells one from a later one of its number."""
    fields = _stat(pid)
    return fields[_BEGAN] if fields else None


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to the tree below ``pid``."""
    for one in tree(pid):
        with suppress(ProcessLookupError):
            os.kill(one, number)


def _stat(pid: int) -> list[str] | None:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return None
