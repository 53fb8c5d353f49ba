"""The in-memory server's contract tests, on a real kube-apiserver: what they say there must hold here."""
# ruff: noqa: F403  the very tests of tests/kube_api are what is collected here

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from kube_api.test_contract_apply import *
from kube_api.test_contract_garbage import *
from kube_api.test_contract_lists import *
from kube_api.test_contract_objects import *
from kube_api.test_contract_schema import *
from kube_api.test_contract_watch import *
from support.cluster import Cluster
from support.kube.connection import session_of
from support.kube.contract import Api


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[Api]:
    """A namespace of its own on the real server for each test."""
    async with session_of(cluster.kubeconfig) as session:
        prepared = Api(session, f"contract-{uuid.uuid4().hex[:8]}")
        await prepared.prepared()
        yield prepared
        await prepared.call("DELETE", f"/api/v1/namespaces/{prepared.namespace}")
