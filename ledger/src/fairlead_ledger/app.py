"""The application: routers, and how errors are answered."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

from anyio import to_thread
from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fairlead_ledger.errors import Refusal, Unavailable
from fairlead_ledger.folding import folding
from fairlead_ledger.metrics import LedgerMetrics
from fairlead_ledger.routes import experiments, health, intake, units
from fairlead_ledger.service import Service

_LOG = logging.getLogger(__name__)
_DRAIN_S = 20.0
_LEAVE_S = 10.0

ROUTERS: tuple[APIRouter, ...] = (health.ROUTES, intake.ROUTES, experiments.ROUTES, units.ROUTES)
"""Of the ledger itself."""


class Carrier(Protocol):
    """Brings messages otherwise than over HTTP, in a thread of its own."""

    def start(self) -> None:
        """Begin."""

    def close(self, deadline_s: float) -> bool:
        """End; return whether that was done in time."""


def application(service: Service, more: Iterable[APIRouter] = (), carrier: Carrier | None = None) -> FastAPI:
    """Return the ledger's application.

    Args:
        service: What the routes work with.
        more: Routers of analysis and page.
        carrier: What else brings messages as long as it runs.
    """

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        service.queue.start()
        async with folding(service):
            if carrier is not None:
                carrier.start()
            _LOG.info("ready")
            yield
            if carrier is not None and not await to_thread.run_sync(carrier.close, _LEAVE_S):
                _LOG.error("stopped before the carrier was")
        if not await to_thread.run_sync(service.queue.close, _DRAIN_S):
            _LOG.error("stopped before everything was written waiting=%s", service.queue.weight)

    app = FastAPI(title="Fairlead ledger", lifespan=running, docs_url=None, redoc_url=None)
    app.state.service = service
    for router in (*ROUTERS, *more):
        app.include_router(router)
    app.add_middleware(_Counted, metrics=service.metrics)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(Unavailable, _unavailable)
    app.add_exception_handler(SQLAlchemyError, _database_failed)
    return app


class _Counted:
    """Counts requests by route and status."""

    def __init__(self, app: ASGIApp, metrics: LedgerMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 500  # unless something else is answered

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            if scope["type"] == "http":
                route = getattr(scope.get("route"), "path", "none")  # never a client's word
                self._metrics.requests.labels(route, str(status)).inc()


async def _refused(_: Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, Refusal) else Refusal.status
    headers = {"www-authenticate": "Bearer"} if status == 401 else None  # noqa: PLR2004 -- Unauthorized
    return JSONResponse({"error": str(error)}, status, headers)


async def _unavailable(_: Request, error: Exception) -> JSONResponse:
    kind = type(error) if isinstance(error, Unavailable) else Unavailable
    return JSONResponse({"error": str(error)}, kind.status, {"retry-after": str(kind.retry_after_s)})


async def _database_failed(request: Request, error: Exception) -> JSONResponse:
    _LOG.warning("database failed error=%s", type(error).__name__)
    return await _unavailable(request, Unavailable("the database does not answer now"))
