"""Whether the ledger lives, whether it may be asked, and its metrics."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from fairlead_ledger.errors import Unavailable
from fairlead_ledger.service import Service, service_of
from fairlead_ledger.store import versions

ROUTES = APIRouter(tags=["health"])


@ROUTES.get("/healthz")
async def lives() -> dict[str, str]:
    """Answer, without asking the database."""
    return {"status": "ok"}


@ROUTES.get("/readyz")
async def ready(request: Request) -> dict[str, str]:
    """Answer 200 if the database can be read and has the tables of this version, or those of a later one."""
    await to_thread.run_sync(_check, service_of(request))
    return {"status": "ok"}


@ROUTES.get("/metrics")
async def metrics(request: Request) -> Response:
    """Tell what was counted, for Prometheus."""
    return Response(generate_latest(service_of(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _check(service: Service) -> None:
    found = versions.version(service.ledger.database)
    if not versions.serves(found):
        raise Unavailable(f"the database has version {found}, this ledger needs {versions.newest()}: run migrate")
