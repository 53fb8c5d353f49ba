"""The queue before the database: bounded, written together, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from fairlead_ledger.errors import Full, Unavailable
from fairlead_ledger.intake.queue import Queue
from support.waiting import until


class Database:
    """Takes what it is given, once it may."""

    def __init__(self) -> None:
        self.transactions: list[list[int]] = []
        self.may_write = threading.Event()
        self.is_away = False

    def write(self, brought: Sequence[int]) -> Sequence[int]:
        self.may_write.wait(60)
        if self.is_away:
            raise OSError("away")
        self.transactions.append(list(brought))
        return [-one for one in brought]


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
async def queue(database: Database) -> AsyncIterator[Queue]:
    made = Queue(most=10, most_together=4)
    made.start()
    yield made
    database.may_write.set()
    assert made.close(60)


async def _first_is_taken(queue: Queue, database: Database) -> asyncio.Task[int]:
    """Have something written that the database does not let go."""
    first = asyncio.create_task(queue.put(database.write, 0, 1))
    await until(lambda: queue.weight == 1 and not queue._waiting)
    return first


async def test_what_waits_is_written_together_up_to_a_weight(queue: Queue, database: Database) -> None:
    first = await _first_is_taken(queue, database)
    others = [asyncio.create_task(queue.put(database.write, number, 2)) for number in (1, 2, 3)]
    await until(lambda: queue.weight == 7)
    database.may_write.set()
    assert list(await asyncio.gather(first, *others)) == [0, -1, -2, -3]
    assert database.transactions == [[0], [1, 2], [3]]
    assert queue.weight == 0


async def test_what_finds_no_room_is_told_to_come_again(queue: Queue, database: Database) -> None:
    first = await _first_is_taken(queue, database)
    second = asyncio.create_task(queue.put(database.write, 1, 9))
    await until(lambda: queue.weight == 10)
    with pytest.raises(Full):
        await queue.put(database.write, 2, 1)
    database.may_write.set()
    assert list(await asyncio.gather(first, second)) == [0, -1]
    assert await queue.put(database.write, 3, 50) == -3, "what is heavier than all room is written by itself"


async def test_whoever_waits_is_told_when_the_database_is_away(queue: Queue, database: Database) -> None:
    database.is_away = True
    database.may_write.set()
    with pytest.raises(Unavailable):
        await queue.put(database.write, 1, 1)
    database.is_away = False
    assert await queue.put(database.write, 1, 1) == -1


async def test_whoever_goes_away_does_not_keep_others_waiting(queue: Queue, database: Database) -> None:
    first = await _first_is_taken(queue, database)
    second, third = (asyncio.create_task(queue.put(database.write, number, 1)) for number in (1, 2))
    await until(lambda: queue.weight == 3)
    second.cancel()
    await asyncio.wait([second])
    database.may_write.set()
    assert list(await asyncio.gather(first, third)) == [0, -2]


async def test_what_waits_at_the_end_is_written_and_nothing_more_is_taken(queue: Queue, database: Database) -> None:
    first = await _first_is_taken(queue, database)
    second = asyncio.create_task(queue.put(database.write, 1, 1))
    await until(lambda: queue.weight == 2)
    database.may_write.set()
    assert await asyncio.to_thread(queue.close, 60)
    assert list(await asyncio.gather(first, second)) == [0, -1]
    with pytest.raises(Unavailable):
        await queue.put(database.write, 2, 1)
