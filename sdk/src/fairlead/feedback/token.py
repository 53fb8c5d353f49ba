"""The prediction token: what joins an outcome to the prediction that it is about, and to nothing else.

It names experiment, phase, revision, arm, unit digest, time and the outputs that were answered, so that nothing of a
prediction need be kept until its outcome comes. It is signed, so that an outcome cannot be moved to another arm. Form:
``v1.<key id>.<context>.<body>``, the last two base64url without padding, the body payload and MAC, the MAC keyed
BLAKE2b of 16 bytes over ``v1.<key id>.<context>.`` and the payload. The context is phase (uint16, little endian), then
salt, revision and variant in UTF-8, parted by a zero byte: the same in all tokens of an arm and a phase, so that it
is written and hashed once for all of them. The payload is little endian: unit digest (16 bytes), time (uint64), nonce
(8 bytes), rows (uint32), number of outputs (uint8), outputs (float32 each). Test vectors are in the reference.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Final

from fairlead.feedback.keys import UNIT_BYTES, KeyRing, SigningKey, deployment_of

PREDICTION_HEADER = "x-prediction-id"
"""Response header and gRPC trailing metadata that a token is answered in."""

MOST_OUTPUTS = 16
"""Rows whose outputs a token carries; of a larger request it carries none."""
NONCE_BYTES = 8

_VERSION = "v1"
_MAC_BYTES = 16
_HEAD = struct.Struct(f"<{UNIT_BYTES}sQ{NONCE_BYTES}sIB")
_PHASE = struct.Struct("<H")
_LONGEST = 1024
_FORM_PARTS: Final = 4
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


class TokenError(ValueError):
    """A text is no token of ours; the message says why, without the text."""


class ForgedToken(TokenError):
    """It has a token's form, and no key of ours has signed it."""


@dataclass(frozen=True, slots=True)
class Context:
    """What all predictions of one arm in one phase share."""

    salt: str
    """``namespace/name/experiment-id``."""
    phase: int
    """Number of the planned step, from 0."""
    revision: str
    variant: str

    def encoded(self) -> bytes:
        """Return the part of a token that says it; worth keeping, for it is the same in every token."""
        return _PHASE.pack(self.phase) + b"\0".join(text.encode() for text in (self.salt, self.revision, self.variant))


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a token says."""

    context: Context
    unit: bytes
    """What stands for the unit, ``UNIT_BYTES`` long."""
    time_us: int
    """When it was answered, microseconds since 1970-01-01 UTC."""
    rows: int
    """Rows of the request."""
    outputs: tuple[float, ...]
    """The output that the contract names, float32, one per row; empty if there are more than ``MOST_OUTPUTS`` rows."""
    nonce: bytes
    """Random; with the unit and the time it names the prediction."""


class Signer:
    """Mints the tokens of one context, with one key."""

    __slots__ = ("_head", "_state")

    def __init__(self, key: SigningKey, context: bytes) -> None:
        """Prepare what all of them share.

        Args:
            key: What signs them; of the deployment's ring (``KeyRing.of``).
            context: ``Context.encoded()``.
        """
        self._head = b"%b.%b.%b." % (_VERSION.encode(), key.id.encode(), _encoded(context))
        self._state = _mac_of(key, self._head)

    def mint(self, unit: bytes, time_us: int, rows: int, outputs: bytes, nonce: bytes) -> bytes:
        """Return the token of one prediction.

        Args:
            unit: What stands for the unit, ``UNIT_BYTES`` long.
            time_us: Microseconds since 1970-01-01 UTC.
            rows: Rows of the request.
            outputs: One little-endian float32 per row, or nothing.
            nonce: ``NONCE_BYTES`` random bytes.
        """
        payload = _HEAD.pack(unit, time_us, nonce, rows, len(outputs) // 4) + outputs
        mac = self._state.copy()
        mac.update(payload)
        return self._head + _encoded(payload + mac.digest())


def mint(
    key: SigningKey, context: bytes, *, unit: bytes, time_us: int, rows: int, outputs: tuple[float, ...], nonce: bytes
) -> str:
    """Return the token of one prediction; for many of one context see :class:`Signer`.

    Args:
        key: What signs it; of the deployment's ring.
        context: ``Context.encoded()``.
        unit: What stands for the unit, ``UNIT_BYTES`` long.
        time_us: Microseconds since 1970-01-01 UTC.
        rows: Rows of the request.
        outputs: One float per row, or none.
        nonce: ``NONCE_BYTES`` random bytes.
    """
    packed = struct.pack(f"<{len(outputs)}f", *outputs)
    return Signer(key, context).mint(unit, time_us, rows, packed, nonce).decode()


def read(token: str, root: KeyRing) -> Prediction:
    """Return what a token says, once its signature is seen to be right.

    Args:
        token: As received.
        root: The ring that the deployments' rings are derived from.

    Raises:
        ForgedToken: The key is unknown, or the signature differs.
        TokenError: It has no token's form.
    """
    if len(token) > _LONGEST:
        raise TokenError(f"is longer than {_LONGEST} characters")
    parts = token.split(".")
    if parts[0] != _VERSION or len(parts) != _FORM_PARTS or not parts[1]:
        raise TokenError("is no prediction token of version v1")
    key_id, context = parts[1], _context(_decoded(parts[2]))
    raw = _decoded(parts[3])
    payload, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    prediction = _prediction(context, payload)
    key = root.of(deployment_of(context.salt)).key(key_id)
    if key is None:
        raise ForgedToken("is signed with an unknown key")
    found = _mac_of(key, token[: -len(parts[3])].encode())
    found.update(payload)
    if not hmac.compare_digest(found.digest(), mac):
        raise ForgedToken("has a signature that differs")
    return prediction


def _mac_of(key: SigningKey, head: bytes) -> hashlib.blake2b:
    secret = key.secret
    if len(secret) > hashlib.blake2b.MAX_KEY_SIZE:
        secret = hashlib.blake2b(secret).digest()
    return hashlib.blake2b(head, digest_size=_MAC_BYTES, key=secret)


def _encoded(raw: bytes) -> bytes:
    return binascii.b2a_base64(raw, newline=False).translate(_URL_SAFE, b"=")


def _decoded(text: str) -> bytes:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise TokenError("is not base64url") from None
    if _encoded(raw).decode() != text:  # one prediction has one token, to the letter
        raise TokenError("is not base64url")
    return raw


def _context(raw: bytes) -> Context:
    try:
        (phase,) = _PHASE.unpack_from(raw)
        salt, revision, variant = raw[_PHASE.size :].decode().split("\0")
    except (struct.error, ValueError):
        raise TokenError("has no context of version v1") from None
    return Context(salt, phase, revision, variant)


def _prediction(context: Context, payload: bytes) -> Prediction:
    try:
        unit, time_us, nonce, rows, count = _HEAD.unpack_from(payload)
        outputs = struct.unpack(f"<{count}f", payload[_HEAD.size :])
    except struct.error:
        raise TokenError("has no payload of version v1") from None
    return Prediction(context, unit, time_us, rows, outputs, nonce)
