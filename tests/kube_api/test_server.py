"""What the in-memory server adds to a real one: its log, and ways to disturb it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from support.kube import KubeApiServer, Refuse, calls


@pytest.fixture
async def server() -> AsyncIterator[KubeApiServer]:
    async with KubeApiServer(namespaces=["flights"]) as running:
        yield running


@pytest.fixture
async def client(server: KubeApiServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url) as session:
        yield session


CONFIG_MAPS = "/api/v1/namespaces/flights/configmaps"


async def test_every_request_is_in_the_log(server: KubeApiServer, client: aiohttp.ClientSession) -> None:
    value = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "scores"}, "data": {"a": "1"}}
    async with client.post(CONFIG_MAPS, json=value, params={"fieldManager": "fairlead"}) as answer:
        assert answer.status == 201
    async with client.get(f"{CONFIG_MAPS}/scores") as answer:
        assert answer.status == 200

    assert [record.call.verb for record in server.requests] == ["create", "get"]
    assert [str(record) for record in server.changes] == ["create configmaps flights as fairlead -> 201"]


async def test_a_planned_refusal_befalls_the_call_it_is_for(
    server: KubeApiServer, client: aiohttp.ClientSession
) -> None:
    server.faults.inject(Refuse(429, "TooManyRequests", retry_after_s=3), calls("list", "configmaps"))
    async with client.get(CONFIG_MAPS) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "3")
    async with client.get(CONFIG_MAPS) as answer:
        assert answer.status == 200
