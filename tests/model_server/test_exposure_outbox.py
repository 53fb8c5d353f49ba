"""Reports wait in order, whole, within their room, and outlive the process where there is a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead_server.exposure.outbox import DISK_BLOCK_BYTES, MOST_IN_MEMORY_BYTES, Outbox

ROOM = 100 * DISK_BLOCK_BYTES


def size_of(size_bytes: int, folder: Path | None) -> int:
    """What a report takes: whole blocks on the disk."""
    return size_bytes if folder is None else DISK_BLOCK_BYTES


def bodies(outbox: Outbox) -> list[bytes]:
    """Take everything out."""
    found: list[bytes] = []
    while (first := outbox.first()) is not None:
        found.append(first[1])
        outbox.remove(first[0])
    return found


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "deep" / "spool" if request.param == "disk" else None


def test_reports_leave_in_the_order_in_which_they_came(folder: Path | None) -> None:
    outbox = Outbox(folder, ROOM)
    for name in ("a", "b", "c"):
        assert outbox.add(name, name.encode())
    assert (len(outbox), outbox.size_bytes) == (3, 3 * size_of(1, folder))
    assert bodies(outbox) == [b"a", b"b", b"c"]
    assert (len(outbox), outbox.size_bytes) == (0, 0)


def test_what_is_postponed_comes_after_the_others(folder: Path | None) -> None:
    outbox = Outbox(folder, ROOM)
    for name in ("a", "b", "c"):
        outbox.add(name, name.encode())
    first = outbox.first()
    assert first is not None
    outbox.postpone(first[0])
    assert bodies(outbox) == [b"b", b"c", b"a"]


def test_what_finds_no_room_is_not_taken(folder: Path | None) -> None:
    long, short = bytes(3 * DISK_BLOCK_BYTES), bytes(DISK_BLOCK_BYTES)
    outbox = Outbox(folder, 5 * DISK_BLOCK_BYTES - 1)
    assert outbox.add("a", long)
    assert not outbox.add("b", long)
    assert outbox.add("c", short)
    assert bodies(outbox) == [long, short]
    assert outbox.add("b", long)


def test_memory_has_its_own_bound() -> None:
    outbox = Outbox(None, 10 * MOST_IN_MEMORY_BYTES)
    assert outbox.add("a", bytes(MOST_IN_MEMORY_BYTES))
    assert not outbox.add("b", b"1")


def test_a_later_process_sends_what_an_earlier_one_left_and_removes_what_it_left_unfinished(tmp_path: Path) -> None:
    earlier = Outbox(tmp_path, ROOM)
    for name in ("2", "1"):
        earlier.add(name, name.encode())
    (tmp_path / "3.json.gz.part").write_bytes(b"half")

    later = Outbox(tmp_path, ROOM)
    assert later.size_bytes == 2 * DISK_BLOCK_BYTES
    later.add("4", b"4")
    assert bodies(later) == [b"1", b"2", b"4"]
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_has_sent_already_is_passed_over(tmp_path: Path) -> None:
    one, other = Outbox(tmp_path, ROOM), Outbox(tmp_path, ROOM)
    one.add("1", b"1")
    one.add("2", b"2")
    other = Outbox(tmp_path, ROOM)
    assert bodies(one) == [b"1", b"2"]
    assert bodies(other) == []
    assert (other.size_bytes, other.disk_failures) == (0, 0)


def test_a_folder_that_cannot_be_written_is_counted_and_memory_takes_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    outbox = Outbox(tmp_path / "file", ROOM)
    assert outbox.add("1", b"1")
    assert outbox.add("2", b"2")
    assert outbox.disk_failures == 3
    assert caplog.text.count("what=write") == 1, "the same trouble is logged once"
    assert bodies(outbox) == [b"1", b"2"]
