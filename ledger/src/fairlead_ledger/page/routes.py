"""The pages: one for each experiment, and one that lists them. For a browser, which sends an API key as a password."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from fairlead.experiment import words
from fairlead_ledger.access import BEARER, Caller, Role
from fairlead_ledger.analysis.analyses import Analyses, Everything
from fairlead_ledger.analysis.looks import by_metric
from fairlead_ledger.errors import NotFound, Refusal, Unauthenticated, Unavailable
from fairlead_ledger.page import render
from fairlead_ledger.page.render import Entry, experiment_html, list_html, refusal_html
from fairlead_ledger.page.view import Decided, Known, page_of
from fairlead_ledger.routes.experiments import Part, salt_of
from fairlead_ledger.service import Service, service_of
from fairlead_ledger.store.experiments import Experiment, State
from fairlead_ledger.store.verdicts import Last

ROUTES = APIRouter(prefix="/experiments", tags=["page"], include_in_schema=False)

MOST_LISTED = 200
_BASIC = "basic "
_STATES: Mapping[State, tuple[str, str]] = {
    State.UNDECLARED: (words.Tone.VOID, "Undeclared"),
    State.RUNNING: (words.Tone.WAIT, "Running"),
    State.ENDED: ("plain", "Ended"),
    State.PURGED: ("plain", "Ended, units removed"),
}


@ROUTES.get("")
async def listed(request: Request) -> Response:
    """Show every experiment that the reader may see, the latest first."""
    try:
        service, caller = _reader(request)
        found = await to_thread.run_sync(service.ledger.experiments)
        last = await to_thread.run_sync(service.ledger.verdicts)
    except (Refusal, Unavailable) as error:
        return _refused(error)
    seen = [one for one in found if caller.may_tell_of(one.salt)]
    return _page(list_html(tuple(_entries(seen[:MOST_LISTED], last)), left_out=max(len(seen) - MOST_LISTED, 0)))


@ROUTES.get("/")
async def listed_with_slash() -> Response:
    """Lead to the list."""
    return RedirectResponse("/experiments", 308)


@ROUTES.get("/{namespace}/{name}/{id_}")
async def shown(request: Request, namespace: Part, name: Part, id_: Part) -> Response:
    """Show one experiment."""
    salt = salt_of(namespace, name, id_)
    try:
        service, caller = _reader(request)
        if not caller.may_tell_of(salt):
            raise NotFound(f"no experiment {salt} is declared")
        everything = await to_thread.run_sync(Analyses(service.ledger).everything, salt)
    except (Refusal, Unavailable) as error:
        return _refused(error)
    html = await to_thread.run_sync(lambda: experiment_html(page_of(_known(everything))))
    return _page(html)


def _reader(request: Request) -> tuple[Service, Caller]:
    service = service_of(request)
    caller = service.access.caller(_with_password(request.headers))
    caller.must(Role.OPERATOR, Role.READER)
    return service, caller


def _with_password(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return headers in which a browser's name and password are an API key's id and secret."""
    told = headers.get("authorization", "")
    if told[: len(_BASIC)].lower() != _BASIC:
        return headers
    try:
        id_, _, secret = base64.b64decode(told[len(_BASIC) :], validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return headers
    return {**headers, "authorization": f"{BEARER}{id_}.{secret}"}


def _refused(error: Refusal | Unavailable) -> Response:
    more = {"www-authenticate": 'Basic realm="Fairlead ledger: id and secret of an API key", charset="UTF-8"'}
    ask = more if isinstance(error, Unauthenticated) else {}
    return _page(refusal_html(str(error)), error.status, ask)


def _page(html: str, status: int = 200, more: Mapping[str, str] | None = None) -> Response:
    return HTMLResponse(html, status, {**render.headers(), **(more or {})})


def _entries(found: Sequence[Experiment], last: Mapping[int, Last]) -> Iterator[Entry]:
    for one in found:
        tone, state = _STATES[one.state]
        said, line = last.get(one.id), f"since {words.moment(one.created_us)}"
        if said is None or one.design is None:
            yield Entry(one.salt, f"/experiments/{one.salt}", tone, state, line)
            continue
        done = f"; {words.ACTIONS[said.action]}" if said.action else ""
        badge = words.badge_of(said.verdict, said.reason, said.phase, one.design)
        yield Entry(one.salt, f"/experiments/{one.salt}", words.TONES[said.verdict], badge, f"{state}{done}, {line}")


def _known(everything: Everything) -> Known:
    record = everything.record
    looks = {key: points for phase, seen in everything.looks.items() for key, points in by_metric(phase, seen).items()}
    design = everything.design
    decided = None
    if record is not None:
        decided = Decided(record.decision.at_us, words.decided(record.decision, design), record.hash)
    return Known(
        design=design,
        reports=everything.reports,
        looks=looks,
        decided=decided,
        started_us=everything.started_us,
        ended=everything.experiment.ended_us is not None,
        erased=everything.experiment.erased,
    )
