"""gRPC's status codes by number and name, and how their text travels."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final
from urllib.parse import quote

_NAMES: Final = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
NUMBER_OF: MappingProxyType[str, int] = MappingProxyType({name: number for number, name in enumerate(_NAMES)})
"""Number by name."""

_PLAIN: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_LONGEST: Final = 1024


def encoded(text: str) -> str:
    """Return a status' text as ``grpc-message``: ASCII, all else percent-encoded, cut if it is long."""
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}…"
    return quote(text, safe=_PLAIN, errors="replace")
