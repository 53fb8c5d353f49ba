"""Units: what is kept of one is removed on its wish."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict

from fairlead_ledger.access import Role
from fairlead_ledger.errors import NotFound
from fairlead_ledger.service import service_of

ROUTES = APIRouter(prefix="/v1/units", tags=["units"])


class Erasure(BaseModel):
    """What became of a wish to be erased."""

    model_config = ConfigDict(frozen=True)

    erased: bool
    """False: nothing was kept of the unit in that experiment."""


@ROUTES.delete("/{unit:path}")
async def erase(
    request: Request,
    unit: str,
    experiment: Annotated[str, Query(pattern=r"^[a-z0-9./:-]{3,160}$")],
) -> Erasure:
    """Remove everything that is kept of a unit in an experiment; the experiment counts that it was."""
    service = service_of(request)
    caller = service.caller(request, Role.APPLICATION, Role.OPERATOR)
    if not caller.may_tell_of(experiment):
        raise NotFound(f"no experiment {experiment} is declared")
    return Erasure(erased=await to_thread.run_sync(service.ledger.erase, experiment, unit))
