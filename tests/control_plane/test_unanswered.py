"""Requests that no server answered: what the gateway logs of them, and what the ledger is told, exactly once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import httpx
import pytest

from fairlead.assignment import Layout, assign
from fairlead.feedback.keys import KeyRing, SigningKey
from fairlead.feedback.messages import ExposureReport, Failure
from fairlead.route import ExperimentRoute, RouteKey
from fairlead_operator.platforms.local.state import State
from fairlead_operator.platforms.local.unanswered import UnansweredLog
from fairlead_operator.platforms.unanswered import Unanswered, read_line
from support.envoy import MODEL, ManifestFile, Up, post, running, wait_until

SALT = "flights/arrival-delay/e1"
LAYOUT = Layout.of("logistic", {"boosted": 5000})
KEY = RouteKey("k1", b"k" * 16)
ROOT = KeyRing((SigningKey("k1", b"s" * 16),), b"u" * 16)
UNITS = [f"N{number}" for number in range(40)]
FORGED = {"x-fairlead-experiment": "v1.k1.e30.AA"}
NOW_US = 1_383_264_000_000_000


def line(unit: str | None, *, key: RouteKey = KEY, phase: int = 0, duration_ms: int = 3) -> bytes:
    variant = assign(unit or "N0", SALT, LAYOUT)
    route = ExperimentRoute(SALT, phase, f"{MODEL}-{variant}-1", variant, LAYOUT, "header:x-unit-id")
    fields = {"experiment": route.sign(key), "unit": unit, "flags": "UC", "duration_ms": duration_ms}
    return json.dumps(fields).encode() + b"\n"


def read_lines(lines: Iterable[bytes], key: RouteKey) -> list[Unanswered]:
    return [request for one in lines if (request := read_line(one, {key.id: key})) is not None]


def digest(unit: str) -> str:
    return ROOT.of("flights/arrival-delay").unit(unit.encode(), SALT).hex()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "unanswered.log"


def opened(log: Path, *ids: str) -> UnansweredLog:
    names = iter(ids or ("gateway-1",))
    return UnansweredLog(log, key=KEY, root=ROOT, new_id=lambda: next(names))


def report(unanswered: UnansweredLog) -> ExposureReport:
    made = unanswered.next_report(NOW_US)
    assert made is not None
    return made


def test_each_request_is_an_error_of_the_arm_that_its_unit_belongs_to(log: Path) -> None:
    unanswered = opened(log)
    log.write_bytes(line("N1") + line("N2", duration_ms=10_000) + line("N1", duration_ms=7))
    told = report(unanswered)
    assert {(c.unit, c.variant, c.requests, c.errors, c.latency_us) for c in told.counts} == {
        (digest("N1"), assign("N1", SALT, LAYOUT), 2, 2, 10_000),
        (digest("N2"), assign("N2", SALT, LAYOUT), 1, 1, 10_000_000),
    }
    assert all(count.failures == {Failure.NO_ANSWER: count.errors} for count in told.counts)
    assert {(e.unit, e.variant, e.at_us) for e in told.exposures} == {
        (digest(unit), assign(unit, SALT, LAYOUT), NOW_US) for unit in ("N1", "N2")
    }
    assert sum(block.errors for block in told.blocks) == 3
    assert {block.minute for block in told.blocks} == {NOW_US // 60_000_000}


def test_phases_are_kept_apart(log: Path) -> None:
    unanswered = opened(log)
    log.write_bytes(line("N1") + line("N1", phase=1))
    assert [(count.phase, count.errors) for count in report(unanswered).counts] == [(0, 1), (1, 1)]


@pytest.mark.parametrize(
    "odd",
    [
        b"\n",
        b"{\n",
        b"[]\n",
        b'{"experiment": "v1.k1.e30.AA", "unit": "N1"}\n',
        line("N1", key=RouteKey("k2", b"x" * 16)),
    ],
)
def test_what_was_not_signed_here_is_nobodys_request(odd: bytes) -> None:
    assert read_lines([odd, line("N1")], KEY) == read_lines([line("N1")], KEY)


def test_a_unit_that_the_log_cannot_name_counts_in_its_block_alone(log: Path) -> None:
    stranger = next(unit for unit in UNITS if assign(unit, SALT, LAYOUT) != assign("N0", SALT, LAYOUT))
    unanswered = opened(log)
    log.write_bytes(line(None) + line("N0").replace(b'"N0"', f'"{stranger}"'.encode()))
    told = report(unanswered)
    assert (told.counts, told.exposures) == ((), ())
    assert [(block.requests, block.errors) for block in told.blocks] == [(2, 2)]


def test_a_report_is_the_same_until_it_was_taken_whatever_was_written_since(log: Path) -> None:
    first = opened(log)
    assert first.next_report(NOW_US) is None
    log.write_bytes(line("N1"))
    told = report(first)
    with log.open("ab") as more:
        more.write(line("N2") + line("N3")[:-9])
    again = opened(log, "never")
    assert report(again) == told
    again.told()
    after = report(opened(log, "never"))
    assert (after.server, after.sequence) == (told.server, told.sequence + 1)
    assert [count.unit for count in after.counts] == [digest("N2")], "a line that is not whole waits"


def test_a_position_that_was_lost_tells_nothing_twice(log: Path) -> None:
    opened(log)
    log.write_bytes(line("N1"))
    report(opened(log))
    log.with_suffix(".told.json").write_text("{")
    anew = opened(log, "gateway-2")
    assert anew.next_report(NOW_US) is None
    with log.open("ab") as more:
        more.write(line("N2"))
    assert report(anew).server == "gateway-2"


def served(up: Up) -> int:
    """Return how many requests have come to the treatment's server."""
    return int(httpx.get(f"http://127.0.0.1:{up.http_port('boosted')}/metrics", trust_env=False).text)


async def test_the_gateway_logs_what_a_killed_server_did_not_answer_and_nothing_else(tmp_path: Path) -> None:
    manifest = ManifestFile.make(tmp_path, routing={"unit": {"header": "x-plane"}, "timeout": "4s"})
    with running(Up(manifest)) as up:
        state = State(up.state, MODEL)
        log, key = state.envoy / "unanswered.log", state.route_key()
        headers = [{"x-plane": unit} for unit in UNITS]
        assert {answer.status for answer in await post(up.port, headers)} == {200}
        late, missing = await post(up.port, [{"x-plane": "N7"}, FORGED], connections=2, body=b'{"sleep_s": 5}')
        assert (late.status, missing.status) == (504, 504)
        pid, before = up.pid("boosted"), served(up)
        asking = asyncio.create_task(post(up.port, headers, connections=40, body=b'{"sleep_s": 2}'))
        doomed = sum(assign(unit, SALT, LAYOUT) == "boosted" for unit in UNITS)
        await asyncio.to_thread(wait_until, lambda: served(up) == before + doomed, 20, up.explain)
        os.kill(pid, signal.SIGKILL)
        answers = await asking
        lost = {unit for unit, answer in zip(UNITS, answers, strict=True) if answer.status != 200}
        assert lost <= {unit for unit in UNITS if assign(unit, SALT, LAYOUT) == "boosted"}
        wait_until(lambda: len(read_lines(log.read_bytes().splitlines(), key)) > len(lost), 10, log.read_text)
        requests = read_lines(log.read_bytes().splitlines(), key)
    assert requests[0].unit == "N7"
    assert requests[0].latency_us > 3_500_000
    assert {request.unit for request in requests[1:]} == lost
    assert len(lost) == doomed
    assert len(requests) == len(lost) + 1, "no copy of a request that was tried again"


def test_a_large_log_that_was_told_whole_begins_anew_under_another_name(log: Path) -> None:
    with log.open("wb") as file:
        file.truncate(64 * 2**20 + 1)
    unanswered = opened(log, "gateway-1", "gateway-2")
    with log.open("ab") as file:
        file.write(line("N1"))
    unanswered.begin_anew_if_large()
    assert log.exists(), "a line of it was not told yet"
    report(unanswered)
    unanswered.told()
    unanswered.begin_anew_if_large()
    assert not log.exists()
    log.write_bytes(line("N2"))
    told = report(unanswered)
    assert (told.server, told.sequence, [count.unit for count in told.counts]) == ("gateway-2", 0, [digest("N2")])
