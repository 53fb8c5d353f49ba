"""The prediction token: what joins an outcome to the prediction that it is about, and to nothing else.

It names experiment, phase, revision, arm, unit digest, time and the outputs that were answered, so that nothing of a
prediction need be kept until its outcome comes. It is signed, so that an outcome cannot be moved to another arm. Form:
``v1.<key id>.<base64url without padding of payload and MAC>``, the MAC the first 16 bytes of HMAC-SHA256 over
``v1.<key id>.`` and the payload; the payload little endian: unit digest (16 bytes), time (uint64), nonce (8 bytes),
rows (uint32), number of outputs (uint8), outputs (float32 each), phase (uint16), then salt, revision and variant in
UTF-8, parted by a zero byte. Test vectors are in the reference.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
from dataclasses import dataclass

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
        """Return the part of a payload that says it; worth keeping, for it is the same in every token."""
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


def mint(
    key: SigningKey, context: bytes, *, unit: bytes, time_us: int, rows: int, outputs: tuple[float, ...], nonce: bytes
) -> str:
    """Return the token of one prediction.

    Args:
        key: What signs it.
        context: ``Context.encoded()``.
        unit: What stands for the unit, ``UNIT_BYTES`` long.
        time_us: Microseconds since 1970-01-01 UTC.
        rows: Rows of the request.
        outputs: One float per row, or none.
        nonce: ``NONCE_BYTES`` random bytes.
    """
    head = f"{_VERSION}.{key.id}."
    payload = (
        _HEAD.pack(unit, time_us, nonce, rows, len(outputs)) + struct.pack(f"<{len(outputs)}f", *outputs) + context
    )
    mac = hmac.digest(key.secret, head.encode() + payload, "sha256")[:_MAC_BYTES]
    return head + _encoded(payload + mac)


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
    head, _, body = token.rpartition(".")
    version, _, key_id = head.partition(".")
    if version != _VERSION or not key_id:
        raise TokenError("is no prediction token of version v1")
    raw = _decoded(body)
    payload, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    prediction = _prediction(payload)
    key = root.of(deployment_of(prediction.context.salt)).key(key_id)
    if key is None:
        raise ForgedToken("is signed with an unknown key")
    if not hmac.compare_digest(hmac.digest(key.secret, f"{head}.".encode() + payload, "sha256")[:_MAC_BYTES], mac):
        raise ForgedToken("has a signature that differs")
    return prediction


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(body: str) -> bytes:
    try:
        raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    except (binascii.Error, ValueError):
        raise TokenError("is not base64url") from None
    if _encoded(raw) != body:  # one prediction has one token, to the letter
        raise TokenError("is not base64url")
    return raw


def _prediction(payload: bytes) -> Prediction:
    try:
        unit, time_us, nonce, rows, count = _HEAD.unpack_from(payload)
        outputs = struct.unpack_from(f"<{count}f", payload, _HEAD.size)
        at = _HEAD.size + 4 * count
        (phase,) = _PHASE.unpack_from(payload, at)
        salt, revision, variant = payload[at + _PHASE.size :].decode().split("\0")
    except (struct.error, ValueError):
        raise TokenError("has no payload of version v1") from None
    return Prediction(Context(salt, phase, revision, variant), unit, time_us, rows, outputs, nonce)
