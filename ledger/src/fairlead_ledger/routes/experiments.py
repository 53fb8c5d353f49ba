"""Experiments: their designs, and where they stand."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict

from fairlead.experiment.design import Design
from fairlead_ledger import body
from fairlead_ledger.access import Role
from fairlead_ledger.errors import Conflict, Forbidden, NotFound
from fairlead_ledger.service import Service, service_of
from fairlead_ledger.store.experiments import Experiment, State
from fairlead_ledger.store.verdicts import Last

ROUTES = APIRouter(prefix="/v1/experiments", tags=["experiments"])

Part = Annotated[str, Path(pattern=r"^[a-z0-9.:-]{1,100}$")]


class ExperimentState(BaseModel):
    """One experiment, as it stands."""

    model_config = ConfigDict(frozen=True)

    salt: str
    """``namespace/name/experiment-id``."""
    state: State
    created_us: int
    ended_us: int | None
    erased: int
    """Units that were erased."""
    digest: str | None
    """Of the design."""
    design: Design | None
    """None while servers tell of it and nobody has declared it."""
    last: Last | None
    """What was said of it last; None before the first look."""

    @classmethod
    def of(cls, experiment: Experiment, last: Last | None) -> ExperimentState:
        """Return what is told of an experiment."""
        names = ("salt", "state", "created_us", "ended_us", "erased", "digest", "design")
        return cls(**{name: getattr(experiment, name) for name in names}, last=last)


class ExperimentList(BaseModel):
    """All experiments, the latest first."""

    model_config = ConfigDict(frozen=True)

    experiments: tuple[ExperimentState, ...]


@ROUTES.put("/{namespace}/{name}/{id_}", response_model=ExperimentState)
async def declare(request: Request, response: Response, namespace: Part, name: Part, id_: Part) -> ExperimentState:
    """Declare an experiment: 201 if it is new, 200 if it is declared the same, 409 if otherwise."""
    service = service_of(request)
    caller = service.caller(request, Role.OPERATOR)
    design = body.parsed(await body.read(request, service.limits.body_bytes), Design)
    if design.salt != salt_of(namespace, name, id_):
        raise Conflict(f"the design's salt is {design.salt}, the path's {salt_of(namespace, name, id_)}")
    if not caller.may_tell_of(design.salt):
        raise Forbidden(f"the API key {caller.name} may not declare {design.salt}")
    if await to_thread.run_sync(service.ledger.declare, design):
        response.status_code = 201
    return await _state(service, design.salt)


@ROUTES.get("")
async def listed(request: Request) -> ExperimentList:
    """Tell every experiment, the latest first."""
    service = service_of(request)
    caller = service.caller(request, Role.OPERATOR, Role.READER)
    found = await to_thread.run_sync(service.ledger.experiments)
    last = await to_thread.run_sync(service.ledger.verdicts)
    seen = [one for one in found if caller.may_tell_of(one.salt)]
    return ExperimentList(experiments=tuple(ExperimentState.of(one, last.get(one.id)) for one in seen))


@ROUTES.get("/{namespace}/{name}/{id_}")
async def told(request: Request, namespace: Part, name: Part, id_: Part) -> ExperimentState:
    """Tell an experiment's design, and where it stands."""
    service = service_of(request)
    caller = service.caller(request, Role.OPERATOR, Role.READER)
    salt = salt_of(namespace, name, id_)
    if not caller.may_tell_of(salt):
        raise NotFound(f"no experiment {salt} is declared")
    return await _state(service, salt)


async def _state(service: Service, salt: str) -> ExperimentState:
    experiment = await to_thread.run_sync(service.ledger.experiment, salt)
    return ExperimentState.of(experiment, await to_thread.run_sync(service.ledger.verdict, experiment.id))


def salt_of(namespace: str, name: str, id_: str) -> str:
    """Return the salt that a path names."""
    return f"{namespace}/{name}/{id_}"
