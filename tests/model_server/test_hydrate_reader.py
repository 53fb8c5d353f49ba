"""Waiting requests are answered together, within their deadlines, and not at all while the store is sick."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from fairlead.policy import Hydration
from fairlead_server.hydrate.found import Found, Heard, Lookup
from fairlead_server.hydrate.generic import GenericBackEnd
from fairlead_server.hydrate.plan import compile_plan
from fairlead_server.hydrate.reader import Asked, BackEnd, Reader, Together
from fairlead_server.hydrate.source import source_of
from fairlead_server.hydrate.thread import WorkerThread
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.load import freeze_memory
from support import blocking_redis
from support.predictors import NOON, contract_for
from support.servers import redis_server
from support.store import FeatureRepo, make_repo
from support.waiting import until

TAILS = ("tailnum",)
ORIGINS = ("origin",)
PAIRS = ("origin", "dest")


class Reading:
    """A reader of a back end and its metrics."""

    def __init__(self, back_end: BackEnd, deadline_s: float, waiting_limit: int = 1024) -> None:
        self.registry = CollectorRegistry()
        self.reader = Reader(
            back_end,
            self._settle,
            deadline_s=deadline_s,
            metrics=ServerMetrics(self.registry).of(model="m", variant="v"),
            waiting_limit=waiting_limit,
        )

    def ask(self, tail: str = "N1") -> asyncio.Future[Found | None]:
        """Ask for one plane."""
        future: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
        self.reader.submit(Asked(1, {ORIGINS: [("EWR",)], PAIRS: [("EWR", "IAH")], TAILS: [(tail,)]}, future))
        return future

    def count(self, outcome: str) -> float | None:
        labels = {"model": "m", "variant": "v", "outcome": outcome}
        return self.registry.get_sample_value("fairlead_store_reads_total", labels)

    @staticmethod
    def _settle(asked: Sequence[Asked], together: Together, found: Found | None) -> None:
        del together
        for one in asked:
            if not one.settled:
                one.settled = True
                if not one.request.done():
                    one.request.set_result(found)


def back_end_of(repo: FeatureRepo, deadline_s: float = 1) -> GenericBackEnd:
    return GenericBackEnd(
        repo.store,
        compile_plan(contract_for(repo), Hydration()).views,
        source_of(repo.store, contract_for(repo)).tables,
        thread=WorkerThread("test"),
        deadline_s=deadline_s,
    )


def seats(found: Found | None) -> list[Any]:
    assert found is not None
    plane = found["plane"]
    assert plane is not None
    return list(plane.columns[0])


class DeadStore:
    """A back end that fails at once until it is told to answer, and counts how often it was asked."""

    name = "dead"
    reads_at_once = 2

    def __init__(self) -> None:
        self.probe: Lookup = {TAILS: [("",)]}
        self.reads = 0
        self.dead = True

    async def connect(self) -> None:
        """There is nothing to connect to."""

    def start(self, lookup: Lookup, heard: Heard) -> bool:
        del lookup, heard
        return False

    async def read(self, lookup: Lookup) -> Found:
        del lookup
        self.reads += 1
        if self.dead:
            raise ConnectionError
        return {}

    async def close(self) -> None:
        """Nothing is open."""


async def test_requests_beyond_the_limit_are_refused_at_once(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        repo = make_repo(tmp_path / "repo", online_store=server.online_store | {"type": blocking_redis.TYPE})
        reading = Reading(back_end_of(repo), deadline_s=0.3, waiting_limit=3)
        server.freeze()
        first = reading.ask()
        await asyncio.sleep(0.05)
        others = [reading.ask() for _ in range(5)]
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
    reading = Reading(back_end_of(repo), deadline_s=1)
    statements: list[str] = []
    repo.store.provider.online_store._get_conn(repo.store.config).set_trace_callback(statements.append)
    answers = await asyncio.gather(*(reading.ask(f"N{i % 3}") for i in range(30)))
    assert [seats(found) for found in answers] == [[0, 1, 2]] * 30
    assert reading.count("ok") == 30
    reads = [statement for statement in statements if statement.startswith("SELECT")]
    assert len(reads) == 4


async def test_a_cancelled_request_does_not_disturb_the_others(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo")
    repo.write("plane", {"tailnum": "N1"}, {"seats": 5, "maker": "", "jet": True}, NOON)
    reading = Reading(back_end_of(repo), deadline_s=1)
    asked = [reading.ask() for _ in range(10)]
    await asyncio.sleep(0)
    for future in asked[::2]:
        future.cancel()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [True, False] * 5
    assert seats(await reading.ask()) == [5]


async def test_an_answer_in_time_counts_though_the_event_loop_was_late(tmp_path: Path) -> None:
    reading = Reading(back_end_of(make_repo(tmp_path / "repo")), deadline_s=0.05)
    asked = reading.ask()
    for _ in range(3):
        await asyncio.sleep(0)
    threading.Event().wait(0.2)
    found = await asked
    assert found is not None
    assert [view and list(view.event_us) for view in found.values()] == [[0]] * 4
    assert reading.count("timeout") == 0


async def test_a_view_that_cannot_be_read_fails_alone(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo")
    reading = Reading(back_end_of(repo), deadline_s=1)
    repo.store.provider.online_store._get_conn(repo.store.config).execute("DROP TABLE small_plane")
    for _ in range(5):
        found = await reading.ask()
        assert found is not None
        assert [view for view, read in found.items() if read is None] == ["plane"]
    assert reading.reader.failing
    assert not await reading.reader.answers()
    assert reading.count("error") == 6


async def test_a_dead_store_is_left_alone_after_three_failures_and_found_again_without_a_request() -> None:
    store = DeadStore()
    reading = Reading(store, deadline_s=0.2)
    for _ in range(3):
        assert await reading.ask() is None
    reads = store.reads
    assert await asyncio.gather(*(reading.ask() for _ in range(500))) == [None] * 500
    assert reads == 3
    assert reading.count("refused") == 500
    await until(lambda: store.reads > 4)
    store.dead = False
    await until(lambda: not reading.reader.failing)
    assert await reading.ask() == {}
    circuits = {
        circuit: reading.registry.get_sample_value(
            "fairlead_store_circuits_total", {"model": "m", "variant": "v", "circuit": circuit}
        )
        for circuit in ("open", "half_open", "closed")
    }
    assert circuits["open"] == circuits["half_open"]
    assert circuits["closed"] == 1
    await reading.reader.close()


async def test_failures_that_are_not_in_a_row_do_not_open_the_circuit() -> None:
    store = DeadStore()
    reading = Reading(store, deadline_s=0.2)
    for i in range(12):
        store.dead = i % 3 != 2
        await reading.ask()
    assert store.reads == 12
    assert reading.count("refused") == 0
    await reading.reader.close()


async def test_closing_while_the_circuit_is_open_ends_the_attempts() -> None:
    store = DeadStore()
    reading = Reading(store, deadline_s=0.2)
    for _ in range(3):
        await reading.ask()
    await reading.reader.close()
    reads = store.reads
    await asyncio.sleep(0.3)
    assert store.reads == reads


def test_freezing_memory_takes_what_is_loaded_out_of_collections() -> None:
    try:
        freeze_memory()
        assert gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()
