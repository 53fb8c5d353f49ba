"""The one line that a container leaves when it fails; Kubernetes shows it as ``state.terminated.message``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ENVIRONMENT = "FAIRLEAD_TERMINATION_LOG"
"""Variable with another file to write; empty for none."""

_DEFAULT = Path("/dev/termination-log")
_MAX_BYTES = 4096
"""What Kubernetes keeps."""


def write_termination(message: str, environment: Mapping[str, str]) -> None:
    """Leave ``message`` for Kubernetes, as one line of at most 4096 bytes; nothing happens outside a container.

    Args:
        message: What went wrong and what to do; no secrets.
        environment: The process' variables, for ``FAIRLEAD_TERMINATION_LOG``.
    """
    path = _path(environment)
    if path is None:
        return
    line = " ".join(message.split()).encode()[:_MAX_BYTES]
    try:
        path.write_text(line.decode(errors="ignore"))
    except OSError:
        return  # the message is on standard error too; there is nowhere else to say so


def _path(environment: Mapping[str, str]) -> Path | None:
    chosen = environment.get(ENVIRONMENT)
    if chosen is not None:
        return Path(chosen) if chosen else None
    # Kubernetes makes the file before the container starts; elsewhere it must not be made.
    return _DEFAULT if _DEFAULT.exists() else None
