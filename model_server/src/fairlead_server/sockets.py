"""Ports, opened before anything that takes time to import."""

from __future__ import annotations

import logging
import resource
import socket

from fairlead_server.errors import PortTaken

_LOG = logging.getLogger(__name__)
_BACKLOG = 2048
_OTHER_FILES = 128
"""Files that a process may have open beside its connections: libraries, the spool, stores."""


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


def room_for(connections: int) -> int:
    """Make room for so many connections among the files that this process may open, as far as it may.

    Returns:
        For how many there is room.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    room = max(1, allowed - _OTHER_FILES)
    if room < connections:
        _LOG.warning("fewer connections than wanted, for want of open files connections=%d files=%d", room, allowed)
    return room
