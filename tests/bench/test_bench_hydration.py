"""Goals of hydration are judged by what was measured, and the page agrees with its data."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from bench.hydration.main import CASE_NAMES, main
from bench.hydration.trip import Trip
from bench.results import Record

from bench.hydration import page

ROOT = Path(__file__).resolve().parents[2]


def record(case: str, system: str, p50_us: float, rate: float = 1.0, p99_us: float = 1.0) -> Record:
    return Record(case, system, rate, p50_us, p99_us, 1.0)


def met(*records: Record) -> dict[str, bool]:
    """Return whether each goal that was measured is met, by the goal's first words."""
    return {goal.what.split(":")[0]: goal.met for goal in page.goals(records) if goal.met is not None}


def test_nothing_is_judged_that_was_not_measured() -> None:
    assert met() == {}
    assert met(record("redis-30x1", "fairlead", 80)) == {}


@pytest.mark.parametrize(("ours_us", "wanted"), [(119, True), (121, False)])
def test_one_row_is_judged_by_its_time_above_the_bare_round_trip(ours_us: float, wanted: bool) -> None:
    found = page.goals([record("redis-30x1", "fairlead", ours_us), record("redis-30x1", "roundtrip", 20)])
    assert [goal.met for goal in found if goal.met is not None] == [wanted]


def test_ratios_to_feast_and_the_tail_are_judged() -> None:
    assert met(
        record("redis-30x100", "fairlead", 1000, p99_us=1900),
        record("redis-30x100", "feast", 4100),
        record("redis-30-32inflight", "fairlead", 1, rate=900),
        record("redis-30-32inflight", "feast", 1, rate=100),
        record("redis-odfv-1", "fairlead", 100),
        record("redis-odfv-1", "feast", 499),
    ) == {"100 rows": True, "32 in flight": False, "on-demand view in mode python, 1 row": False}


def test_the_page_is_what_its_data_make() -> None:
    assert page.differing(ROOT) == []


@pytest.mark.parametrize("wrong", [["--only", "redis-30x2"], ["--rounds", "many"]])
def test_wrong_arguments_are_refused_with_what_there_is(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert CASE_NAMES[0] in told or "many" in told


async def test_a_round_trip_ends_with_its_last_byte_and_not_before() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        writer.write(b"123")
        await reader.readexactly(1)
        writer.write(b"45678")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        trip = await Trip.to(server.sockets[0].getsockname()[1])
        first, second = trip.ask(b"a", 2), trip.ask(b"b", 6)
        await first
        assert not second.done()
        third = trip.ask(b"c", 0)
        await asyncio.gather(second, third)
        trip.close()
