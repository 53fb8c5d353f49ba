"""Questions to a program: does it answer?"""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request

_TIMEOUT_S = 2


def answers(url: str, context: ssl.SSLContext | None = None) -> bool:
    """Return whether a GET is answered with 200."""
    handlers = [urllib.request.ProxyHandler({}), *([urllib.request.HTTPSHandler(context=context)] if context else [])]
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=_TIMEOUT_S) as response:
            return bool(response.status == http.client.OK)
    except (urllib.error.URLError, OSError, http.client.HTTPException):
        return False
