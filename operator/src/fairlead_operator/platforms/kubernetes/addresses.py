"""How addresses of pods and Services are written."""

from __future__ import annotations


def in_url(address: str) -> str:
    """Return an IP address or host name as it stands before the port of a URL: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address
