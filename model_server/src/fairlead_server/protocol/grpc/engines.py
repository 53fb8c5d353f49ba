"""Which engine drives gRPC connections."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final

from fairlead_server.errors import StartupError
from fairlead_server.native import native as installed
from fairlead_server.protocol.grpc import native
from fairlead_server.protocol.grpc.engine import MIB, Engine, Limits

ENGINES: Final = ("auto", "native", "python", "grpcio")
"""What ``--grpc-engine`` takes; grpcio is a server of its own (:mod:`.grpcio`)."""
PROCESS_BYTES: Final = 256 * MIB
"""What all connections may hold together of messages that are not whole and answers that are not sent."""


def chosen(name: str) -> str:
    """Return the engine that a name stands for: what ``auto`` finds, or the name."""
    if name != "auto":
        return name
    return "python" if installed is None else "native"


def maker_of(name: str, limits: Limits, held_bytes: int = PROCESS_BYTES) -> Callable[[], Engine]:
    """Return what makes the engines of a process' connections.

    Args:
        name: ``native`` or ``python``.
        limits: Of each connection.
        held_bytes: What all may hold together, at least what one may.

    Raises:
        StartupError: The native engine is asked for, and not installed.
    """
    held_bytes = max(held_bytes, limits.held_bytes)
    if name == "native":
        try:
            return native.maker(limits, held_bytes)
        except ImportError:
            raise StartupError(
                "--grpc-engine native: the extension is not installed; build it with make setup where cargo is, "
                "or use --grpc-engine auto"
            ) from None
    python = importlib.import_module("fairlead_server.protocol.grpc.python")  # brings hyper-h2, for whoever needs it
    made: Callable[[], Engine] = python.maker(limits, held_bytes)
    return made
