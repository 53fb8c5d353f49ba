"""Models of one process share a feature store: its configuration, its threads, and the connections to Redis."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import redis

from fairlead_server.hydrate.shared import Shared
from support.models import write_model
from support.predictors import NOON, contract_for, keys_of
from support.repository_stand import stand
from support.servers import RedisServer, redis_server
from support.store import make_repo
from support.waiting import until

MODELS = ("a", "b", "c", "d")
EXPLICIT = ("--model-control=explicit", "--load-model", "*", "--registry-refresh=0")


class Connections:
    """Counts connections to a server; those that are there at first do not count."""

    def __init__(self, server: RedisServer) -> None:
        self._client = redis.Redis(host=server.host, port=server.port)
        self._client.ping()
        self._before = self._ids()

    def _ids(self) -> set[str]:
        clients: Any = self._client.client_list()
        return {one["id"] for one in clients}

    @property
    def count(self) -> int:
        return len(self._ids() - self._before)


async def ask(client: httpx.AsyncClient, model: str) -> int:
    """Ask for a hydrated prediction and return the seats that the model saw."""
    answer = await client.post(f"/v1/models/{model}:predict", json={"instances": [keys_of(tailnum="N3")]})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["predictions"][0]["seen_plane__seats"])


def store_threads() -> int:
    return sum(thread.name.startswith("feature-store") for thread in threading.enumerate())


async def test_models_of_a_repository_share_connections_to_redis(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        repo = make_repo(tmp_path / "repo", online_store=server.online_store)
        repo.write("plane", {"tailnum": "N3"}, {"seats": 3, "maker": "BOEING", "jet": True}, NOON)
        (tmp_path / "models").mkdir()
        for name in MODELS:
            write_model(tmp_path / "models" / f"{name}.onnx", contract_for(repo))
        connections = Connections(server)
        threads = store_threads()
        store = ("--feature-store", str(repo.path))
        async with stand(tmp_path / "models", *store, *EXPLICIT) as models:
            for name in MODELS:
                assert await ask(models.client, name) == 3
            assert connections.count == 1
            assert store_threads() - threads == 2
            # Those that read at the same moment need one each; it is kept for whoever reads next.
            assert await asyncio.gather(*(ask(models.client, name) for name in MODELS * 4)) == [3] * 4 * len(MODELS)
            assert connections.count <= len(MODELS)
            for name in MODELS[:-1]:
                assert (await models.control(name, "unload")).status_code == 200
            assert await ask(models.client, "d") == 3
            assert (await models.control("d", "unload")).status_code == 200
            await until(lambda: connections.count == 0)
            await until(lambda: store_threads() == threads)


async def test_what_is_shared_is_made_once_and_closed_by_the_last() -> None:
    made: list[str] = []
    closed: list[str] = []
    shared = Shared()

    def make() -> str:
        made.append("made")
        return f"thing {len(made)}"

    async def close(what: str) -> None:
        closed.append(what)

    first, second = (shared.take("name", make, close) for _ in range(2))
    other = shared.take("another name", make, close)
    assert (first.what, second.what, other.what) == ("thing 1", "thing 1", "thing 2")
    await first.close()
    await first.close()
    assert closed == []
    await second.close()
    assert closed == ["thing 1"]
    assert shared.take("name", make, close).what == "thing 3"
    assert len(shared) == 2
