"""Keys of feedback: what signs prediction tokens, and what stands for a unit.

One ring, the root, is known to the operator and the ledger alone. A server gets the ring that is derived from it for
its own deployment, so that whoever reads one deployment's keys can neither forge another's tokens nor know its units.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

UNIT_BYTES = 16
"""Length of what stands for a unit."""


class KeyRingError(ValueError):
    """A text is no key ring; the message names the field, never a secret."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs prediction tokens."""

    id: str
    """Short name, [a-z0-9-]; which key a token was signed with."""
    secret: bytes = field(repr=False)
    """At least 16 bytes."""


class _Key(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9-]{1,63}$")
    secret: str = Field(pattern=r"^([0-9a-f]{2}){16,}$")


class _Ring(BaseModel):
    model_config = ConfigDict(extra="forbid")

    signing: list[_Key] = Field(min_length=1)
    units: str = Field(pattern=r"^([0-9a-f]{2}){16,}$")


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Keys that sign, and the secret by which units are told apart without being known."""

    signing: tuple[SigningKey, ...]
    """The first one signs, all of them verify: one that is replaced stays until the last outcome window has passed."""
    units: bytes = field(repr=False)
    """Never changes while an experiment runs."""

    def of(self, deployment: str) -> KeyRing:
        """Return the ring of one deployment.

        Args:
            deployment: Its namespace and name, ``flights/arrival-delay``.
        """
        signing = tuple(SigningKey(key.id, _derived(key.secret, "token", deployment)) for key in self.signing)
        return KeyRing(signing, _derived(self.units, "units", deployment))

    def unit(self, unit: bytes, salt: str) -> bytes:
        """Return what stands for a unit in one experiment, ``UNIT_BYTES`` long; no two experiments are joined by it."""
        return hmac.digest(self.units, salt.encode() + b"\0" + unit, hashlib.sha256)[:UNIT_BYTES]

    def key(self, id_: str) -> SigningKey | None:
        """Return the key of a name; None if there is none."""
        return next((key for key in self.signing if key.id == id_), None)

    def dumped(self) -> str:
        """Return the ring as JSON."""
        signing = [{"id": key.id, "secret": key.secret.hex()} for key in self.signing]
        return json.dumps({"signing": signing, "units": self.units.hex()})

    @classmethod
    def loaded(cls, text: str | bytes) -> Self:
        """Read what :meth:`dumped` wrote.

        Raises:
            KeyRingError: It is something else.
        """
        try:
            ring = _Ring.model_validate_json(text)
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            raise KeyRingError(f"no key ring: {place or 'not JSON'}: {error.errors()[0]['type']}") from None
        signing = tuple(SigningKey(key.id, bytes.fromhex(key.secret)) for key in ring.signing)
        return cls(signing, bytes.fromhex(ring.units))


def deployment_of(salt: str) -> str:
    """Return the deployment, ``namespace/name``, that an experiment's salt, ``namespace/name/id``, belongs to."""
    return salt.rpartition("/")[0]


def _derived(secret: bytes, use: str, deployment: str) -> bytes:
    return hmac.digest(secret, f"{use}:{deployment}".encode(), "sha256")
