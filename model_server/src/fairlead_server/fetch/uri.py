"""Where a model file is and what it must be: ``fairlead+s3://bucket/key@sha256:…``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from fairlead_server.errors import FetchRefused

SCHEMES = ("s3", "gs", "https", "http", "file")
"""What may follow ``fairlead+``."""

_URI = re.compile(r"fairlead\+([a-z0-9]+)://([^\x00-\x20\x7f]+)@(sha256:[0-9a-f]{64})")
_FORM = "give fairlead+SCHEME://PLACE@sha256:<64 hexadecimal digits>"


@dataclass(frozen=True, slots=True)
class ModelUri:
    """A model file's address and digest."""

    scheme: str
    """One of ``SCHEMES``."""
    place: str
    """What follows ``SCHEME://``: bucket and key, host and path, or an absolute path."""
    digest: str
    """``sha256:…`` that the file must have."""

    @property
    def url(self) -> str:
        """The address without ``fairlead+`` and digest; it may hold secrets."""
        return f"{self.scheme}://{self.place}"

    @property
    def shown(self) -> str:
        """The address for messages: without user, password and query, which may be secret."""
        if self.scheme not in {"http", "https"}:
            return self.url
        parts = urlsplit(self.url)
        return f"{self.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def bucket(self) -> str:
        """What the object store calls it."""
        return self.place.partition("/")[0]


def parse_uri(text: str) -> ModelUri:
    """Read an address.

    Raises:
        FetchRefused: It is none; the message says which part is wrong.
    """
    found = _URI.fullmatch(text)
    if found is None:
        raise FetchRefused(f"{_bare(text)}: not the address of a model; {_FORM}")
    uri = ModelUri(found[1], found[2], found[3])
    if uri.scheme not in SCHEMES:
        raise FetchRefused(f"{_bare(text)}: scheme {uri.scheme} is unknown; use one of {', '.join(SCHEMES)}")
    wrong = _wrong_place(uri)
    if wrong:
        raise FetchRefused(f"{uri.shown}: {wrong}; {_FORM}")
    return uri


def _wrong_place(uri: ModelUri) -> str | None:
    if uri.scheme == "file":
        return None if uri.place.startswith("/") else "a file's path must be absolute (file:///mnt/…)"
    if uri.scheme in {"s3", "gs"}:
        bucket, _, key = uri.place.partition("/")
        return None if bucket and key and not key.endswith("/") else "there is no bucket, or no object's key"
    try:
        parts = urlsplit(uri.url)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        host = None
    return None if host else "there is no host, or no valid port"


def _bare(text: str) -> str:
    """Return as much of an unreadable address as holds no secret."""
    return repr(text.partition("?")[0].rpartition("@")[2][-120:] if "://" not in text else _without_user(text))


def _without_user(text: str) -> str:
    scheme, _, rest = text.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"[:200]
