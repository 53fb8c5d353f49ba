"""Fixtures around the in-memory server. A test module imports those that it uses, or its conftest does."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from support.kube.builtin import istio_kinds, kserve_kinds
from support.kube.contract import Api
from support.kube.server import KubeApiServer


@pytest.fixture
async def kube_server() -> AsyncIterator[KubeApiServer]:
    """A server with KServe's and Istio's kinds and a namespace ``flights``."""
    async with KubeApiServer(kinds=(*kserve_kinds(), *istio_kinds()), namespaces=("flights",)) as server:
        yield server


@pytest.fixture
async def api(kube_server: KubeApiServer) -> AsyncIterator[Api]:
    """What contract tests talk to: here the in-memory server."""
    async with aiohttp.ClientSession(kube_server.url) as session:
        prepared = Api(session, "contract")
        await prepared.prepared()
        yield prepared
