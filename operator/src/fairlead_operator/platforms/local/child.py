"""Runs a command so that it ends with its parent: ``python child.py PARENT_PID COMMAND...``.

Linux sends the command SIGTERM when the thread that started it ends, however that came about. Started by file, not
as a module, so that it costs a few milliseconds. Elsewhere the command just runs; what is left behind after a
``kill -9`` is ended at the next start, by its recorded id.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Become ``command``, tied to ``parent``."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)  # the parent ended before it could be heard of
    os.execvp(command[0], command)  # noqa: S606 -- becoming the command is what this program is for


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
