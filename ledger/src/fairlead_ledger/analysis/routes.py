"""Analysis, evidence, decision and record of an experiment."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from fairlead.experiment.decision import Decision
from fairlead.experiment.evidence import Evidence
from fairlead.experiment.report import Report
from fairlead_ledger import body
from fairlead_ledger.access import Role
from fairlead_ledger.analysis.analyses import Analyses
from fairlead_ledger.errors import Forbidden, NotFound
from fairlead_ledger.routes.experiments import Part, salt_of
from fairlead_ledger.service import service_of

ROUTES = APIRouter(prefix="/v1/experiments/{namespace}/{name}/{id_}", tags=["analysis"])

Phase = Annotated[int | None, Query(ge=0, lt=1 << 16)]


@ROUTES.get("/analysis")
async def analysis(request: Request, namespace: Part, name: Part, id_: Part, phase: Phase = None) -> Report:
    """Judge a phase by itself: the one that is asked for, or the last that has begun."""
    analyses, salt = _readable(request, namespace, name, id_)
    with service_of(request).metrics.analyses.time():
        return await to_thread.run_sync(analyses.report, salt, phase)


@ROUTES.get("/evidence")
async def evidence(request: Request, namespace: Part, name: Part, id_: Part) -> Evidence:
    """Tell what analyses are made from: sums over units, and nothing per unit."""
    analyses, salt = _readable(request, namespace, name, id_)
    return await to_thread.run_sync(analyses.evidence, salt)


@ROUTES.get("/record")
async def record(request: Request, namespace: Part, name: Part, id_: Part) -> Response:
    """Tell what was decided, and everything that it followed from, as it was written."""
    analyses, salt = _readable(request, namespace, name, id_)
    kept = await to_thread.run_sync(analyses.record, salt)
    return _json(kept.json_text)


@ROUTES.post("/decision")
async def decide(request: Request, namespace: Part, name: Part, id_: Part) -> Response:
    """Make the record of a decision: 201 if it is new, 200 if it was told before, 409 if another one was."""
    service = service_of(request)
    caller = service.caller(request, Role.OPERATOR)
    decision = body.parsed(await body.read(request, service.limits.body_bytes), Decision)
    salt = salt_of(namespace, name, id_)
    if not caller.may_tell_of(salt):
        raise Forbidden(f"the API key {caller.name} may not decide {salt}")
    kept, is_new = await to_thread.run_sync(Analyses(service.ledger).decide, salt, decision)
    return _json(kept.json_text, 201 if is_new else 200)


def _readable(request: Request, namespace: str, name: str, id_: str) -> tuple[Analyses, str]:
    service = service_of(request)
    caller = service.caller(request, Role.OPERATOR, Role.READER)
    salt = salt_of(namespace, name, id_)
    if not caller.may_tell_of(salt):
        raise NotFound(f"no experiment {salt} is declared")
    return Analyses(service.ledger), salt


def _json(text: str, status: int = 200) -> Response:
    return Response(text, status, media_type="application/json")
