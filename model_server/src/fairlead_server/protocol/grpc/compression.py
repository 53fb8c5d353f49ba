"""gzip of single messages, which is what ``grpc-encoding: gzip`` means."""

from __future__ import annotations

import zlib
from typing import Final

from fairlead_server.errors import InvalidRequest, RequestTooLarge

LEAST_BYTES: Final = 1024
"""Size from which on compressing an answer may pay."""
_GZIP: Final = 16 + zlib.MAX_WBITS
_FASTEST: Final = 1


def unpacked(message: bytes, limit: int) -> bytes:
    """Return what a gzip message holds.

    Args:
        message: As it was sent.
        limit: Most bytes that it may hold.

    Raises:
        InvalidRequest: It is no gzip.
        RequestTooLarge: It holds more.
    """
    unpacking = zlib.decompressobj(_GZIP)
    try:
        content = unpacking.decompress(message, limit + 1)
    except zlib.error:
        raise InvalidRequest("the message is not gzip, though it says so") from None
    if len(content) > limit:
        raise RequestTooLarge(f"the message is too large; send at most {limit} bytes")
    if not unpacking.eof or unpacking.unused_data:
        raise InvalidRequest("the message is not one whole gzip member")
    return content


def packed(message: bytes) -> bytes | None:
    """Return a message as gzip; None if it does not get smaller."""
    if len(message) < LEAST_BYTES:
        return None
    packing = zlib.compressobj(_FASTEST, zlib.DEFLATED, _GZIP)
    compressed = packing.compress(message) + packing.flush()
    return compressed if len(compressed) < len(message) else None
