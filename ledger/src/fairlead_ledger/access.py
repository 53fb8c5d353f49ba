"""Who may tell and ask what: API keys with roles, and identities that a proxy has verified."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from fairlead.feedback.keys import deployment_of
from fairlead_ledger.errors import Forbidden, StartupError, Unauthenticated

BEARER = "bearer "
FORWARDED_CERT = "x-forwarded-client-cert"
"""Envoy's header for the certificate of a client."""


class Role(StrEnum):
    """What somebody may do."""

    SERVER = "server"
    """Tell of exposures."""
    APPLICATION = "application"
    """Tell of outcomes, and erase units."""
    OPERATOR = "operator"
    """Declare experiments and decide them; read everything."""
    READER = "reader"
    """Read analyses, records and pages."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sends a request."""

    name: str
    """Id of the API key; for logs."""
    roles: frozenset[Role]
    deployments: frozenset[str] | None = None
    """``namespace/name`` of those that it may tell of; None for all."""

    def must(self, *roles: Role) -> None:
        """Go on only for those that have one of some roles.

        Raises:
            Forbidden: It has none of them.
        """
        if not self.roles.intersection(roles):
            raise Forbidden(f"the API key {self.name} needs the role {' or '.join(roles)}")

    def may_tell_of(self, salt: str) -> bool:
        """Return whether an experiment is one of its deployments'."""
        return self.deployments is None or deployment_of(salt) in self.deployments


class Access(Protocol):
    """Knows callers by what comes with their requests."""

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Return who sent a request.

        Raises:
            Unauthenticated: Nobody that is known.
        """


class Open:
    """Everyone may do everything: for one machine, on its loopback."""

    def caller(self, headers: Mapping[str, str]) -> Caller:  # noqa: ARG002 -- whatever they say
        """Return somebody who may do everything."""
        return Caller("anyone", frozenset(Role))


class ApiKey(BaseModel):
    """One entry of the file of API keys: a secret's hash, or an identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9-]{1,63}$")
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the secret, hexadecimal."""
    identity: str | None = Field(default=None, min_length=1, max_length=512)
    """What the proxy's identity header says instead, ``spiffe://…``."""
    roles: frozenset[Role] = Field(min_length=1)
    deployments: frozenset[str] | None = None

    @model_validator(mode="after")
    def _can_be_known(self) -> ApiKey:
        if self.hash is None and self.identity is None:
            raise ValueError("give hash or identity")
        return self

    @property
    def caller(self) -> Caller:
        """Who has it."""
        return Caller(self.id, self.roles, self.deployments)


_KEYS: TypeAdapter[tuple[ApiKey, ...]] = TypeAdapter(tuple[ApiKey, ...])


class KeyedAccess:
    """Callers of a file of API keys, read again when it changes."""

    def __init__(self, path: Path, identity_header: str | None = None) -> None:
        """Read the file.

        Args:
            path: JSON: a list of API keys.
            identity_header: Header in which a proxy tells the identity it has verified; None to believe none.

        Raises:
            StartupError: The file is not one.
        """
        self._path = path
        self._identity_header = identity_header.lower() if identity_header else None
        self._stamp = _stamp(path)
        self._keys = _read(path)

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Return who sent a request.

        Raises:
            Unauthenticated: Nobody that is known.
        """
        keys = self._current()
        told = headers.get("authorization", "")
        if told[: len(BEARER)].lower() == BEARER:
            return _bearer(keys, told[len(BEARER) :].strip())
        identity = self._identity(headers)
        for key in keys:
            if key.identity is not None and hmac.compare_digest(key.identity.encode(), identity.encode()):
                return key.caller
        raise Unauthenticated("send an API key: Authorization: Bearer ID.SECRET")

    def _identity(self, headers: Mapping[str, str]) -> str:
        """Return the identity that the proxy tells; of Envoy's header the URI of the last certificate, the nearest."""
        told = headers.get(self._identity_header, "") if self._identity_header else ""
        if self._identity_header != FORWARDED_CERT:
            return told
        last = told.rpartition(",")[2]
        fields = (field.partition("=") for field in last.split(";"))
        return next((value.strip('"') for name, _, value in fields if name.strip().lower() == "uri"), "")

    def _current(self) -> tuple[ApiKey, ...]:
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            try:
                self._keys = _read(self._path)
            except StartupError:
                return self._keys  # half written, or wrong: the last good ones hold
            self._stamp = stamp
        return self._keys


def _bearer(keys: tuple[ApiKey, ...], told: str) -> Caller:
    id_, _, secret = told.partition(".")
    hashed = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
    for key in keys:
        if key.id == id_ and key.hash is not None and hmac.compare_digest(key.hash, hashed):
            return key.caller
    raise Unauthenticated("the API key is not known")


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0, 0)
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)


def _read(path: Path) -> tuple[ApiKey, ...]:
    try:
        return _KEYS.validate_json(path.read_bytes())
    except OSError as error:
        raise StartupError(f"--api-keys {path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "JSON"
        raise StartupError(f"--api-keys {path}: {place}: {first['msg']}") from None
