"""What servers and applications tell."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from fairlead.feedback.messages import ExposureReport, OutcomeAnswer, OutcomeBatch
from fairlead_ledger import body
from fairlead_ledger.access import Caller, Role
from fairlead_ledger.errors import Forbidden, Unreadable
from fairlead_ledger.intake.judge import Joined
from fairlead_ledger.intake.rules import Refused
from fairlead_ledger.service import Service, service_of
from fairlead_ledger.store.reports import misfit

ROUTES = APIRouter(prefix="/v1", tags=["intake"])


class ReportAnswer(BaseModel):
    """What became of a server's report."""

    model_config = ConfigDict(frozen=True)

    new: bool
    """False: it was told before, and counts once."""


@ROUTES.post("/exposures")
async def tell_exposures(request: Request) -> ReportAnswer:
    """Take a report of a server; told again it counts once."""
    service = service_of(request)
    caller = service.caller(request, Role.SERVER)
    raw = await body.read(request, service.limits.body_bytes)
    report = await to_thread.run_sync(_report, service, raw, request.headers.get("content-encoding", ""))
    parts = (*report.exposures, *report.counts, *report.blocks, *report.mismatches)
    for salt in {part.salt for part in parts}:
        if not caller.may_tell_of(salt):
            raise Forbidden(f"the API key {caller.name} may not tell of {salt}")
    is_new = await service.queue.put(service.ledger.take_reports, report, weight=len(parts) + 1)
    service.metrics.reports.labels("new" if is_new else "duplicate").inc()
    return ReportAnswer(new=is_new)


@ROUTES.post("/outcomes")
async def tell_outcomes(request: Request) -> OutcomeAnswer:
    """Take outcomes; those that are refused are in the answer, each with the reason."""
    service = service_of(request)
    caller = service.caller(request, Role.APPLICATION)
    raw = await body.read(request, service.limits.body_bytes)
    encoding = request.headers.get("content-encoding", "")
    judged = await to_thread.run_sync(_judged, service, caller, raw, encoding)
    answer = await service.queue.put(service.ledger.take_outcomes, judged, weight=len(judged))
    service.metrics.count_outcomes(answer)
    return answer


def _report(service: Service, raw: bytes, encoding: str) -> ExposureReport:
    report = body.parsed(body.inflated(raw, encoding, service.limits.body_bytes), ExposureReport)
    if (why := misfit(report)) is not None:
        raise Unreadable(why)
    return report


def _judged(service: Service, caller: Caller, raw: bytes, encoding: str) -> list[Joined | Refused]:
    told = body.parsed(body.inflated(raw, encoding, service.limits.body_bytes), OutcomeBatch).outcomes
    return service.ledger.judge(told, caller.may_tell_of)
