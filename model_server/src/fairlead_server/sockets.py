"""Ports, opened before anything that takes time to import."""

from __future__ import annotations

import socket

from fairlead_server.errors import PortTaken

_BACKLOG = 2048


def listen(host: str, port: int, flag: str) -> socket.socket:
    """Return a socket that listens on ``host`` and ``port`` (0: any).

    Args:
        host: Address of this machine.
        port: TCP port.
        flag: Flag that sets the port, for the message.

    Raises:
        PortTaken: Another program listens there, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen(_BACKLOG)
    except OSError as error:
        opened.close()
        reason = error.strerror or error
        raise PortTaken(f"cannot listen on {host}:{port}: {reason}; choose another with {flag}") from None
    return opened
