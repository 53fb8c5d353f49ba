"""The models of a repository in this process, asked without sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client import CollectorRegistry

from fairlead.clock import SystemClock
from fairlead_server.loading import load
from fairlead_server.metrics import ServerMetrics
from fairlead_server.protocol.rest import Limits, RestApplication
from fairlead_server.protocol.service import Service
from fairlead_server.settings import from_arguments
from support.repository_models import WIDTH

ROW = [float(value) for value in range(1, WIDTH + 1)]


@dataclass(frozen=True, slots=True)
class Stand:
    """A server's models without its sockets."""

    service: Service
    client: httpx.AsyncClient
    registry: CollectorRegistry

    async def ask(self, model: str) -> httpx.Response:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, WIDTH], "data": ROW}
        return await self.client.post(f"/v2/models/{model}/infer", json={"inputs": [tensor]})

    async def factor(self, model: str) -> float:
        """Return which model answered: by what it multiplies with."""
        answer = await self.ask(model)
        assert answer.status_code == 200, answer.text
        data = answer.json()["outputs"][0]["data"]
        assert data == [data[0] * value for value in ROW]
        return float(data[0])

    async def index(self, **asked: bool) -> dict[tuple[str, str], str]:
        """Return the reason of each version, empty for one that is ready."""
        answer = await self.client.post("/v2/repository/index", json=asked)
        return {(each["name"], each["version"]): each.get("reason", "") for each in answer.json()}

    async def control(self, model: str, verb: str) -> httpx.Response:
        return await self.client.post(f"/v2/repository/models/{model}/{verb}")

    async def status(self, path: str) -> int:
        return (await self.client.get(path)).status_code


@asynccontextmanager
async def stand(folder: Path, *more: str) -> AsyncIterator[Stand]:
    async def nothing(*_: Any) -> None:
        raise AssertionError("KServe's application was asked")

    registry = CollectorRegistry()
    metrics = ServerMetrics(registry)
    settings = from_arguments(["--model-repository", str(folder), *more])
    service = Service(None, "", metrics)
    reporting = await load(settings, SystemClock(), metrics, service)
    application: Any = RestApplication(service, registry, Limits(2**20, 5.0), nothing)
    try:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(application), base_url="http://server", timeout=60
        ) as client:
            yield Stand(service, client, registry)
    finally:
        await reporting.close(1.0)
        await service.close()
