"""Model files over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from fairlead_server.errors import FetchInterrupted, FetchRefused
from fairlead_server.fetch.body import CHUNK_BYTES, Body
from fairlead_server.fetch.uri import ModelUri

_MAY_PASS = frozenset({408, 425, 429})
_MAX_REDIRECTS = 5
_FIX: dict[int, str] = {
    401: "check user and password, or use an address that needs none",
    403: "check that the address may be read from the cluster, and that it has not expired",
    404: "check model.uri",
    410: "check model.uri",
}


@contextmanager
def open_web(uri: ModelUri, timeout_s: float) -> Iterator[Body]:
    """Open an address.

    Args:
        uri: Of scheme http or https.
        timeout_s: Longest wait for a connection, and for more bytes.

    Raises:
        FetchError: It is refused, or interrupted.
    """
    try:
        with _client(uri, timeout_s) as client, client.stream("GET", uri.url) as response:
            _check(response)
            yield Body(_length(response), response.iter_bytes(CHUNK_BYTES))
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
        raise FetchRefused(f"{_said(error)}: check model.uri") from None
    except httpx.ConnectError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise FetchRefused(f"{_said(error)}: name the authority's file in SSL_CERT_FILE") from None
        raise FetchInterrupted(f"no connection ({_said(error)}): check the address and the network policy") from None
    except httpx.HTTPError as error:
        raise FetchInterrupted(f"the connection failed ({_said(error)})") from None


def _client(uri: ModelUri, timeout_s: float) -> httpx.Client:
    def stay_encrypted(request: httpx.Request) -> None:
        if uri.scheme == "https" and request.url.scheme != "https":
            raise FetchRefused("redirects to http: check model.uri")

    return httpx.Client(
        timeout=timeout_s,
        follow_redirects=True,
        max_redirects=_MAX_REDIRECTS,
        headers={"accept-encoding": "identity"},
        event_hooks={"request": [stay_encrypted]},
    )


def _check(response: httpx.Response) -> None:
    status = response.status_code
    if status < 300:  # noqa: PLR2004 -- redirects have been followed
        return
    if status in _MAY_PASS or status >= 500:  # noqa: PLR2004 -- the server's own failures
        raise FetchInterrupted(f"HTTP status {status}")
    raise FetchRefused(f"HTTP status {status}: {_FIX.get(status, 'check model.uri')}")


def _length(response: httpx.Response) -> int | None:
    text = response.headers.get("content-length", "")
    return int(text) if text.isdigit() and "content-encoding" not in response.headers else None


def _said(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
