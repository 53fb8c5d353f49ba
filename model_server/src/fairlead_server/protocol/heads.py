"""HTTP/1.1 requests that came whole and plain, read in one go where the native extension is.

What is read so means the same as to the parser that reads everything; whatever is not plain is left to that one. A
parser that calls Python for each header takes longer than all the rest of a request's way to its rows.
"""

from __future__ import annotations

from collections.abc import Callable

from fairlead.route import EXPERIMENT_HEADER
from fairlead_server.exposure.routes import Headers
from fairlead_server.native import native
from fairlead_server.protocol.rest import TIMEOUT_HEADER
from fairlead_server.protocol.v2 import LENGTH_HEADER

Plain = tuple[bytes, bytes, bytes | None, bytes | None, Headers | None]
"""Target, body, value of ``LENGTH_HEADER``, value of ``TIMEOUT_HEADER``, all headers if an experiment is named."""

Reader = Callable[[bytes], Plain | None]
"""Reads bytes that are exactly one plain POST; None for others."""


def reader() -> Reader | None:
    """Return what reads plain requests; None without the native extension."""
    if native is None:
        return None
    read: Reader = native.Heads(LENGTH_HEADER, TIMEOUT_HEADER.decode(), EXPERIMENT_HEADER).read
    return read
