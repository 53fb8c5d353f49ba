"""The engine of ``model_server/native``: the ``h2`` crate. It is optional; where it is not built, nothing is here."""

from __future__ import annotations

from collections.abc import Callable

from fairlead_server.native import native
from fairlead_server.protocol.grpc.engine import Engine, Limits


def maker(limits: Limits, held_bytes: int) -> Callable[[], Engine]:
    """Return what makes the engines of a process' connections.

    Args:
        limits: Of each connection.
        held_bytes: What all connections may hold together; see ``Limits.held_bytes``.

    Raises:
        ImportError: The extension is not installed.
    """
    if native is None:
        raise ImportError("fairlead_server_native is not installed")
    budget = native.Budget(held_bytes)

    def make() -> Engine:
        made: Engine = native.Connection(
            budget,
            calls=limits.calls,
            message_bytes=limits.message_bytes,
            header_bytes=limits.header_bytes,
            window_bytes=limits.window_bytes,
            connection_window_bytes=limits.connection_window_bytes,
            held_bytes=limits.held_bytes,
            resets=limits.resets,
            resets_per_tick=limits.resets_per_tick,
            message_ticks=limits.message_ticks,
            streaming=limits.streaming,
            marker=limits.marker,
        )
        return made

    return make
