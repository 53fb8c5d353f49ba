"""Issuers of JSON Web Tokens for tests: HMAC keys, and the key set that a gateway is given."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs tokens."""

    name: str
    """What ``iss`` says."""
    secret: bytes
    """At least 32 random bytes."""

    @property
    def jwks(self) -> str:
        """The key set, as JSON."""
        key = {"kty": "oct", "alg": "HS256", "use": "sig", "kid": self.name, "k": _encode(self.secret)}
        return json.dumps({"keys": [key]})

    def token(self, expires_s: int, **claims: Any) -> str:
        """Return a signed token.

        Args:
            expires_s: When it expires, Unix time, seconds.
            claims: Besides ``iss`` and ``exp``.
        """
        head = {"alg": "HS256", "typ": "JWT", "kid": self.name}
        signed = ".".join(_encode(json.dumps(part).encode()) for part in (head, self.claims(expires_s, claims)))
        return f"{signed}.{_encode(hmac.digest(self.secret, signed.encode(), hashlib.sha256))}"

    def claims(self, expires_s: int, claims: dict[str, Any]) -> dict[str, Any]:
        """Return everything that a token says."""
        return {"iss": self.name, "exp": expires_s, **claims}


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
