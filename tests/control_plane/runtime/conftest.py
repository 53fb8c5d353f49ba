"""An API server in memory, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fairlead_operator.platforms.kubernetes.client import KubeClient
from support.kube import KubeApiServer, istio_kinds, kserve_kinds
from support.operators import CRD, client_of


@pytest.fixture
async def server() -> AsyncIterator[KubeApiServer]:
    kinds = [*kserve_kinds(), *istio_kinds()]
    async with KubeApiServer(kinds=kinds, namespaces=["flights", "taxis"], bookmark_interval_s=0.1) as server:
        server.load(CRD)
        yield server


@pytest.fixture
async def client(server: KubeApiServer, tmp_path: Path) -> AsyncIterator[KubeClient]:
    async with client_of(server, tmp_path) as client:
        yield client
