"""The reader answers waiting requests together, within their deadlines, and bounds how many wait."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path

from prometheus_client import CollectorRegistry

from fairlead.policy import Hydration
from fairlead_server.hydrate.generic import GenericReader
from fairlead_server.hydrate.plan import compile_plan
from fairlead_server.hydrate.source import source_of
from fairlead_server.hydrate.thread import WorkerThread
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.load import freeze_memory
from support import blocking_redis
from support.predictors import NOON, contract_for
from support.servers import redis_server
from support.store import FeatureRepo, make_repo


class Reading:
    """A reader of a repository and its metrics."""

    def __init__(self, repo: FeatureRepo, deadline_s: float, waiting_limit: int = 1024) -> None:
        contract = contract_for(repo)
        self.registry = CollectorRegistry()
        self.reader = GenericReader(
            repo.store,
            compile_plan(contract, Hydration()).views,
            source_of(repo.store, contract).tables,
            thread=WorkerThread("test"),
            deadline_s=deadline_s,
            metrics=ServerMetrics(self.registry).of(model="m", variant="v"),
            waiting_limit=waiting_limit,
        )

    def count(self, outcome: str) -> float | None:
        labels = {"model": "m", "variant": "v", "outcome": outcome}
        return self.registry.get_sample_value("fairlead_store_reads_total", labels)


async def test_requests_beyond_the_limit_are_refused_at_once(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        repo = make_repo(tmp_path / "repo", online_store=server.online_store | {"type": blocking_redis.TYPE})
        reading = Reading(repo, deadline_s=0.3, waiting_limit=3)
        server.freeze()
        first = asyncio.create_task(reading.reader.read({"plane": [("N1",)]}))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(reading.reader.read({"plane": [("N1",)]})) for _ in range(5)]
        done, _ = await asyncio.wait(others, timeout=0.05)
        assert len(done) == 2
        assert reading.count("refused") == 2
        assert await asyncio.gather(first, *others) == [None] * 6
        assert reading.count("timeout") == 4
        server.thaw()


async def test_waiting_requests_are_read_together_each_key_once(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo")
    for i in range(3):
        repo.write("plane", {"tailnum": f"N{i}"}, {"seats": i, "maker": "", "jet": True}, NOON)
    reading = Reading(repo, deadline_s=1)
    statements: list[str] = []
    repo.store.provider.online_store._get_conn(repo.store.config).set_trace_callback(statements.append)
    answers = await asyncio.gather(*(reading.reader.read({"plane": [(f"N{i % 3}",)]}) for i in range(30)))
    assert all(rows is not None and rows["plane"] for rows in answers)
    assert reading.count("ok") == 30
    reads = [statement for statement in statements if statement.startswith("SELECT")]
    assert len(reads) <= 2


async def test_a_cancelled_request_does_not_disturb_the_others(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo")
    repo.write("plane", {"tailnum": "N1"}, {"seats": 5, "maker": "", "jet": True}, NOON)
    reading = Reading(repo, deadline_s=1)
    tasks = [asyncio.create_task(reading.reader.read({"plane": [("N1",)]})) for _ in range(10)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [True, False] * 5
    assert await reading.reader.read({"plane": [("N1",)]}) is not None


async def test_an_answer_in_time_counts_though_the_event_loop_was_late(tmp_path: Path) -> None:
    reading = Reading(make_repo(tmp_path / "repo"), deadline_s=0.05)
    asked = asyncio.create_task(reading.reader.read({"plane": [("N1",)]}))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    threading.Event().wait(0.2)
    assert await asked == {"plane": {("N1",): (None, None)}}
    assert reading.count("timeout") == 0


async def test_a_view_that_cannot_be_read_fails_alone(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo")
    reading = Reading(repo, deadline_s=1)
    repo.store.provider.online_store._get_conn(repo.store.config).execute("DROP TABLE small_plane")
    rows = await reading.reader.read({"plane": [("N1",)], "origin_weather": [("EWR",)]})
    assert rows == {"plane": None, "origin_weather": {("EWR",): (None, None)}}
    assert reading.reader.failing
    assert not await reading.reader.answers()
    assert reading.count("error") == 2


def test_freezing_memory_takes_what_is_loaded_out_of_collections() -> None:
    try:
        freeze_memory()
        assert gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()
