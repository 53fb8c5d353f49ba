"""Rows of one turn of the event loop share a run; what goes wrong with one request is no other's business."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from fairlead_server.errors import DeadlinePassed, InferenceFailed, RequestError
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.batch import ROWS_PER_RUN, Batch, Columns

BAD = -1.0
"""A value that the model below cannot bear."""


class Doubling:
    """Stands where a session is: doubles column ``x``, and remembers its runs."""

    def __init__(self, name: str = "", log: list[tuple[str, int]] | None = None) -> None:
        self.name = name
        self.runs: list[tuple[str, int]] = [] if log is None else log

    def run_now(self, columns: Mapping[str, Any], rows: int) -> dict[str, Any]:
        self.runs.append((self.name, rows))
        if (columns["x"] == BAD).any():
            raise InferenceFailed("a value that nobody can bear")
        return {"y": columns["x"] * 2}

    async def run(self, columns: Mapping[str, Any], rows: int) -> dict[str, Any]:
        return self.run_now(columns, rows)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def batch_of(session: Any, registry: CollectorRegistry | None = None, *, joint: bool = True) -> Batch:
    metrics = ServerMetrics(registry or CollectorRegistry()).of(model="m", variant="v")
    return Batch(session, metrics, joint=joint)


def ask(batch: Batch, *values: float, deadline_s: float | None = None) -> asyncio.Future[list[float]]:
    """Submit one request of so many rows; the future has the answer, or the error."""
    answered: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()

    def done(outcome: Columns | RequestError) -> None:
        if isinstance(outcome, RequestError):
            answered.set_exception(outcome)
        else:
            answered.set_result(outcome["y"].tolist())

    batch.submit({"x": np.array(values, np.float32)}, len(values), deadline_s, done)
    return answered


async def test_requests_of_one_turn_share_a_run_and_each_gets_its_rows() -> None:
    session = Doubling()
    batch = batch_of(session)
    asked = [ask(batch, 1, 2), ask(batch, 3), ask(batch, 4, 5, 6)]
    assert await asyncio.gather(*asked) == [[2, 4], [6], [8, 10, 12]]
    assert session.runs == [("", 6)]


async def test_nobody_is_answered_before_submit_has_returned() -> None:
    answered = ask(batch_of(Doubling()), 1)
    assert not answered.done()
    await answered


async def test_a_run_has_bounded_rows() -> None:
    session = Doubling()
    batch = batch_of(session)
    asked = [ask(batch, *range(30)) for _ in range(5)]
    await asyncio.gather(*asked)
    assert [rows for _, rows in session.runs] == [60, 60, 30]


async def test_models_take_turns() -> None:
    runs: list[tuple[str, int]] = []
    busy, quiet = batch_of(Doubling("busy", runs)), batch_of(Doubling("quiet", runs))
    asked = [ask(busy, *range(ROWS_PER_RUN)) for _ in range(3)]
    await asyncio.gather(*asked, ask(quiet, 1))
    assert [name for name, _ in runs] == ["busy", "quiet", "busy", "busy"]


async def test_one_bad_request_fails_alone() -> None:
    session = Doubling()
    batch = batch_of(session)
    good, bad, other = ask(batch, 1), ask(batch, 2, BAD), ask(batch, 3)
    assert await good == [2]
    assert await other == [6]
    with pytest.raises(InferenceFailed):
        await bad
    assert [rows for _, rows in session.runs] == [4, 1, 2, 1]


async def test_an_exception_that_nobody_foresaw_is_a_fault_of_ours_without_its_text() -> None:
    class Broken(Doubling):
        def run_now(self, columns: Mapping[str, Any], rows: int) -> dict[str, Any]:
            raise KeyError(f"secret {columns} {rows}")

    with pytest.raises(InferenceFailed, match="internal error"):
        await ask(batch_of(Broken()), 1)


async def test_rows_that_do_not_fit_together_are_run_apart() -> None:
    session = Doubling()
    batch = batch_of(session)
    found: list[Any] = []
    batch.submit({"x": np.ones((1, 2), np.float32)}, 1, None, found.append)
    batch.submit({"x": np.ones((1, 3), np.float32)}, 1, None, found.append)
    await asyncio.sleep(0)
    assert [answer["y"].tolist() for answer in found] == [[[2, 2]], [[2, 2, 2]]]


async def test_a_model_whose_rows_see_each_other_answers_one_request_per_turn() -> None:
    session = Doubling()
    batch = batch_of(session, joint=False)
    first, second = ask(batch, 1), ask(batch, 2, 3)
    assert await first == [2]
    assert await second == [4, 6]
    assert [rows for _, rows in session.runs] == [1, 2]


async def test_a_request_whose_deadline_has_passed_is_not_run() -> None:
    session = Doubling()
    batch = batch_of(session)
    now_s = asyncio.get_running_loop().time()
    late, in_time = ask(batch, 1, deadline_s=now_s - 1), ask(batch, 2, deadline_s=now_s + 60)
    assert await in_time == [4]
    with pytest.raises(DeadlinePassed):
        await late
    assert session.runs == [("", 1)]


async def test_a_run_of_many_rows_is_awaited_elsewhere() -> None:
    batch = batch_of(Doubling())
    many = list(range(ROWS_PER_RUN + 1))
    assert await ask(batch, *many) == [2 * value for value in many]


async def test_who_cannot_be_told_keeps_no_other_from_being_told() -> None:
    batch = batch_of(Doubling())
    seen: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context["message"]))

    def fail(_: Columns | RequestError) -> None:
        raise ValueError

    batch.submit({"x": np.ones(1, np.float32)}, 1, None, fail)
    assert await ask(batch, 2) == [4]
    assert seen == ["an answer could not be given"]


async def test_a_shared_run_is_timed_once_and_counted_for_every_request(registry: CollectorRegistry) -> None:
    batch = batch_of(Doubling(), registry)
    await asyncio.gather(*(ask(batch, 1) for _ in range(3)))
    labels = {"model": "m", "variant": "v", "stage": "infer"}
    assert registry.get_sample_value("fairlead_stage_seconds_count", labels) == 3
