"""What can go wrong in the ledger.

::

    LedgerError
     ├─ StartupError            the process cannot start; ``exit_code``
     │   └─ PortTaken
     ├─ Refusal                 the request is answered with 4xx; ``status``
     │   ├─ Unauthenticated     401
     │   ├─ Forbidden           403
     │   ├─ NotFound            404
     │   ├─ Conflict            409
     │   ├─ TooLarge            413
     │   └─ Unreadable          400
     └─ Unavailable             503, worth trying again after ``retry_after_s``
         └─ Full                429
"""

from __future__ import annotations

from typing import ClassVar


class LedgerError(Exception):
    """Every error of the ledger."""


class StartupError(LedgerError):
    """The ledger cannot start; the message says what to change."""

    exit_code: ClassVar[int] = 3


class PortTaken(StartupError):
    """The address cannot be listened on."""

    exit_code: ClassVar[int] = 4


class Refusal(LedgerError):
    """A request that its sender must change; sent again as it is, it is refused again."""

    status: ClassVar[int] = 400


class Unreadable(Refusal):
    """The body is not what was asked for."""


class Unauthenticated(Refusal):
    """Nobody known has sent it."""

    status: ClassVar[int] = 401


class Forbidden(Refusal):
    """Whoever sent it may not."""

    status: ClassVar[int] = 403


class NotFound(Refusal):
    """There is no such thing."""

    status: ClassVar[int] = 404


class Conflict(Refusal):
    """It contradicts what is kept."""

    status: ClassVar[int] = 409


class TooLarge(Refusal):
    """The body is longer than may be."""

    status: ClassVar[int] = 413


class Unavailable(LedgerError):
    """Not now; the same request may be sent again."""

    status: ClassVar[int] = 503
    retry_after_s: ClassVar[int] = 5


class Full(Unavailable):
    """More waits to be written than may wait."""

    status: ClassVar[int] = 429
    retry_after_s: ClassVar[int] = 1
