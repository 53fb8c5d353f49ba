"""The experiment header: what a route tells a server about the experiment its request belongs to.

A revision outlives experiments, so everything that belongs to one travels with the request, in
``x-fairlead-experiment``. The route's author signs it; a server that knows the key recomputes the arm and
believes nothing else. Form: ``v1.<key id>.<payload>.<mac>``, the last two base64url without padding, the payload
canonical JSON, the MAC the first 16 bytes of HMAC-SHA256 over everything before it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from fairlead.assignment import BUCKETS, Layout, Slice

EXPERIMENT_HEADER = "x-fairlead-experiment"
VARIANT_HEADER = "x-variant"
UNIT_HEADER = "x-unit-id"
OVERRIDE_HEADER = "x-fairlead-variant"

UNIT_PATTERN = r"[^, \t]([^,]{0,254}[^, \t])?"
"""What a unit looks like (RE2 and Python, full match): 1 to 256 bytes, no comma, no outer blanks."""

HEADER_SOURCE = "header:"
"""How ``ExperimentRoute.unit_source`` names a request header."""

COOKIE_SOURCE = "cookie:"
"""How ``ExperimentRoute.unit_source`` names a cookie."""

_COOKIE_UNIT = r"[^,; \t]{1,256}"
_VERSION = "v1"
_MAC_BYTES = 16


class RouteError(ValueError):
    """An experiment header that does not verify; the message says why, without the header's content."""


@dataclass(frozen=True, slots=True)
class RouteKey:
    """A key that signs experiment headers."""

    id: str
    """Short name, [a-z0-9-]; which key a server must look for."""
    secret: bytes = field(repr=False)
    """At least 16 random bytes."""


@dataclass(frozen=True, slots=True)
class ExperimentRoute:
    """What a route says about one request."""

    salt: str
    phase: int
    """Number of the planned step, from 0."""
    revision: str
    """Revision that this destination is."""
    variant: str
    """Arm that this destination is."""
    layout: Layout
    unit_source: str
    """Where the unit came from: ``header:x-unit-id`` or ``cookie:NAME``."""

    def sign(self, key: RouteKey) -> str:
        """Return the header's value, signed with ``key``."""
        payload = {
            "s": self.salt,
            "p": self.phase,
            "r": self.revision,
            "v": self.variant,
            "a": [[piece.arm, piece.width] for piece in self.layout.slices],
            "u": self.unit_source,
        }
        head = f"{_VERSION}.{key.id}.{_encode(json.dumps(payload, sort_keys=True, separators=(',', ':')).encode())}"
        return f"{head}.{_encode(_mac(head, key.secret))}"


def cookie_pattern(name: str) -> str:
    """Return what a cookie header with a unit in cookie ``name`` looks like; the first group is the unit.

    RE2 and Python, full match; ``name`` has letters, digits, dashes and underscores alone. Of a name given twice the
    last one counts.
    """
    return rf"(?:.*; *)?{name}=({_COOKIE_UNIT})(?: *;.*)?"


def verify(value: str, keys: Mapping[str, RouteKey]) -> ExperimentRoute:
    """Read an experiment header.

    Args:
        value: The header as received.
        keys: Known keys by id.

    Raises:
        RouteError: The form is wrong, the key unknown, or the MAC differs.
    """
    head, _, mac = value.rpartition(".")
    version, _, rest = head.partition(".")
    key_id, _, payload = rest.partition(".")
    if version != _VERSION or not payload:
        raise RouteError("not an experiment header of version v1")
    key = keys.get(key_id)
    if key is None:
        raise RouteError("signed with an unknown key")
    if not hmac.compare_digest(_encode(_mac(head, key.secret)).encode(), mac.encode("utf-8", "replace")):
        raise RouteError("the signature differs")
    route = _route(_decode(payload))
    if sum(piece.width for piece in route.layout.slices) != BUCKETS:
        raise RouteError(f"the arms do not cover {BUCKETS} buckets")
    return route


def _route(payload: bytes) -> ExperimentRoute:
    try:
        fields = json.loads(payload)
        layout = Layout(tuple(Slice(arm, width) for arm, width in fields["a"]))
        return ExperimentRoute(fields["s"], fields["p"], fields["r"], fields["v"], layout, fields["u"])
    except (ValueError, KeyError, TypeError) as error:
        raise RouteError("the payload is signed, but not one of this version") from error


def _mac(head: str, secret: bytes) -> bytes:
    return hmac.digest(secret, head.encode("utf-8", "replace"), "sha256")[:_MAC_BYTES]


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise RouteError("the payload is not base64url") from error
