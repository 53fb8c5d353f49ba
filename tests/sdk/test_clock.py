"""Clocks: the system's, and one that a replay moves across processes."""

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.clock import ReplayClock, ReplayClockWriter, SystemClock, from_us, to_us

moments = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 -- bounds are naive by hypothesis's rule


@given(moment=moments)
def test_a_moment_survives_the_way_to_microseconds_and_back(moment: datetime) -> None:
    assert from_us(to_us(moment)) == moment


@given(moment=moments, offset_h=st.integers(-12, 14))
def test_a_moment_is_the_same_in_every_zone(moment: datetime, offset_h: int) -> None:
    assert to_us(moment.astimezone(timezone(timedelta(hours=offset_h)))) == to_us(moment)


def test_the_system_clock_tells_the_system_time() -> None:
    before = time.time_ns() // 1000
    assert before <= SystemClock().now_us() <= time.time_ns() // 1000


@given(times=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5))
def test_a_replayed_clock_says_what_was_written_last(
    times: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("clock") / "clock"
    writer = ReplayClockWriter(path, times[0])
    clock = ReplayClock(path)
    for time_us in times:
        writer.set_us(time_us)
        assert clock.now_us() == time_us


def test_a_writer_goes_on_from_the_time_that_an_existing_clock_has(tmp_path: Path) -> None:
    ReplayClockWriter(tmp_path / "clock", 42)
    ReplayClockWriter(tmp_path / "clock")
    assert ReplayClock(tmp_path / "clock").now_us() == 42


def test_a_reader_that_was_there_first_sees_a_new_writer(tmp_path: Path) -> None:
    ReplayClockWriter(tmp_path / "clock", 1)
    clock = ReplayClock(tmp_path / "clock")
    ReplayClockWriter(tmp_path / "clock", 2)
    assert clock.now_us() == 2


def test_another_process_reads_the_same_time(tmp_path: Path) -> None:
    ReplayClockWriter(tmp_path / "clock", 1_383_264_000_000_000)
    program = (
        "import sys, pathlib; from fairlead.clock import ReplayClock as C; print(C(pathlib.Path(sys.argv[1])).now_us())"
    )
    said = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "clock")], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "1383264000000000"


def test_a_clock_without_a_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ReplayClock(tmp_path / "none")
