"""What every route works with; routers of other modules take it from the request by :func:`service_of`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from fairlead_ledger.access import Access, Caller, Role
from fairlead_ledger.intake.queue import Queue
from fairlead_ledger.ledger import Ledger
from fairlead_ledger.metrics import LedgerMetrics


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request, and all that wait together, may be."""

    body_bytes: int = 16 * 1024**2
    """Longest body, inflated."""
    waiting: int = 50_000
    """Outcomes and entries of reports that wait to be written."""
    together: int = 5_000
    """Of them, most that are written at once."""
    retention_s: float = 90 * 86400.0
    """How long units are kept of experiments that have ended."""


@dataclass(frozen=True, slots=True)
class Service:
    """The ledger and what stands around it."""

    ledger: Ledger
    queue: Queue
    access: Access
    metrics: LedgerMetrics
    limits: Limits

    def caller(self, request: Request, *roles: Role) -> Caller:
        """Return who sends a request, if it has one of some roles.

        Raises:
            Unauthenticated: Nobody that is known sends it.
            Forbidden: It has none of the roles.
        """
        caller = self.access.caller(request.headers)
        caller.must(*roles)
        return caller


def service_of(request: Request) -> Service:
    """Return what the application of a request was made with."""
    return cast("Service", request.app.state.service)
