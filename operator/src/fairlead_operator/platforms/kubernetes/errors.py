"""Everything that goes wrong between us and the Kubernetes API, as one tree.

KubeError
├── NotFound        no such object
├── KindMissing     the API does not serve this kind: its CRD is not installed
├── Conflict        retryable: the world has moved on; plan anew from what is
│   ├── Stale           resourceVersion or uid is not what was asked for
│   ├── OwnedByOther    another field manager owns a field, and force was not given
│   └── AlreadyExists   create met an object of this name
├── Invalid         the schema, a rule or a webhook refuses the object
├── Forbidden       our role lacks a verb
├── Expired         retryable: 410, the watch or list must start anew
├── Unauthorized    retryable: the credentials were refused though they were read again
└── Unavailable     retryable: no connection, a timeout, 429 or 5xx, after all attempts
LeaseLost           retryable: we are not the leader (any more) and must not write
"""

from __future__ import annotations

from typing import ClassVar

from fairlead_operator.errors import OperatorError


class KubeError(OperatorError):
    """A call to the Kubernetes API failed.

    Attributes:
        code: HTTP status; 0 if there was no answer.
        reason: The API's CamelCase reason; empty if it gave none.
    """

    def __init__(self, message: str, *, code: int = 0, reason: str = "") -> None:
        """Make the error; ``message`` says which call on which object, and what the API answered."""
        super().__init__(message)
        self.code = code
        self.reason = reason


class NotFound(KubeError):
    """No such object."""


class KindMissing(KubeError):
    """The API does not serve this kind: its CRD is not installed."""


class Conflict(KubeError):
    """The world has moved on; plan anew from what is."""

    retryable: ClassVar[bool] = True
    ends_pass: ClassVar[bool] = True


class Stale(Conflict):
    """The object's resourceVersion or uid is not the one that the write was planned from."""


class OwnedByOther(Conflict):
    """Another field manager owns a field that was to be applied."""


class AlreadyExists(Conflict):
    """An object of this name is there already."""


class Invalid(KubeError):
    """The schema, a rule or a webhook refuses the object; the message says why."""


class Forbidden(KubeError):
    """Our role lacks a verb; the message names verb and kind."""


class Expired(KubeError):
    """The resourceVersion or continue token is too old; list anew."""

    retryable: ClassVar[bool] = True


class Unauthorized(KubeError):
    """The credentials were refused, though they were read again."""

    retryable: ClassVar[bool] = True


class Unavailable(KubeError):
    """No connection, a timeout, too many requests or a server's fault, after all attempts."""

    retryable: ClassVar[bool] = True


class LeaseLost(OperatorError):
    """We are not the leader, or cannot be sure that we are; nothing may be written."""

    retryable: ClassVar[bool] = True
    ends_pass: ClassVar[bool] = True
