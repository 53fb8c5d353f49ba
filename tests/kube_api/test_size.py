"""A cluster with many objects is served fast."""

from __future__ import annotations

import time

import aiohttp

from support.kube import KubeApiServer, kserve_kinds
from support.kube.store import Object

SERVICES, BYTES_EACH = 1000, 1000
LISTED_S_MAX, WATCHED_S_MAX = 0.5, 2.0  # 0.05 and 0.03 on an idle core


def service(number: int) -> Object:
    env = [{"name": f"SETTING_{index}", "value": "x" * 20} for index in range(20)]
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": f"s-{number:05}", "namespace": "default", "labels": {"number": str(number)}},
        "spec": {"predictor": {"model": {"env": env}}},
    }


async def test_a_thousand_objects_are_listed_and_watched_fast() -> None:
    async with KubeApiServer(kinds=kserve_kinds()) as server, aiohttp.ClientSession(server.url) as session:
        for number in range(SERVICES):
            server.create(service(number))
        path = "/apis/serving.kserve.io/v1beta1/inferenceservices"
        started = time.perf_counter()
        async with session.get(path) as response:
            assert len(await response.read()) > SERVICES * BYTES_EACH
        listed_s = time.perf_counter() - started
        started = time.perf_counter()
        async with session.get(path, params={"watch": "1"}) as response:
            for _ in range(SERVICES):
                assert await response.content.readline()
        watched_s = time.perf_counter() - started
    assert listed_s < LISTED_S_MAX
    assert watched_s < WATCHED_S_MAX
