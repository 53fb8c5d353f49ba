"""Reports reach a ledger that is away, slow, failing or refusing, each counted once; what is lost is counted."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from fairlead.clock import SystemClock
from fairlead.feedback.keys import KeyRing, SigningKey
from fairlead.feedback.messages import Arm, ExposureReport
from fairlead.feedback.serving import Feedback
from fairlead_server.exposure.http_sink import HttpSink
from fairlead_server.exposure.outbox import Outbox
from fairlead_server.exposure.reporter import Pace, Reporter
from fairlead_server.exposure.tally import Tally
from fairlead_server.metrics import ModelMetrics, ServerMetrics
from support import waiting
from support.exposure_receiver import Receiver, receiver
from support.servers import free_port

ARM = Arm(salt="flights/delay/1", phase=0, variant="boosted", revision="boosted-1")
RING = KeyRing((SigningKey("k1", bytes(16)),), bytes(16))
PACE = Pace(interval_s=0.02, send_deadline_s=5)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for ``condition``, on a slow machine too."""
    await waiting.until(condition, timeout_s=90)


class World:
    """A reporter and what it reports on."""

    def __init__(self, url: str | None, folder: Path | None = None, *, pace: Pace = PACE, room: int = 10**6) -> None:
        self.tally = Tally(most_sums=20, most_known_units=100)
        self.told = None if url is None else Feedback(url, RING)
        self.metrics: ModelMetrics = ServerMetrics(CollectorRegistry()).of(model="m", variant="v")
        self.asked = 0
        self.reporter = Reporter(
            server=f"server-{id(self)}",
            tally=self.tally,
            outbox=lambda: Outbox(folder, room),
            sink=HttpSink(),
            feedback=lambda: self.told,
            clock=SystemClock(),
            metrics=self.metrics,
            pace=pace,
            chance=random.Random(1),  # noqa: S311 -- spreads pauses
        )

    def ask(self, *units: int) -> None:
        for unit in units:
            self.asked += 1
            self.tally.add(
                ARM,
                b"",
                unit.to_bytes(16),
                at_us=0,
                latency_us=1,
                failure=None,
                degraded=False,
                covariate=lambda: None,
            )


@asynccontextmanager
async def running(world: World, *, close_within_s: float = 20) -> AsyncIterator[World]:
    world.reporter.start()
    try:
        yield world
    finally:
        await world.reporter.close(close_within_s)


def waiting_in(folder: Path) -> int:
    return len(list(folder.glob("*.json.gz")))


@pytest.fixture
def ledger() -> Iterator[Receiver]:
    with receiver() as started:
        yield started


async def test_what_was_asked_is_told(ledger: Receiver) -> None:
    async with running(World(ledger.url)) as world:
        world.ask(1, 2, 2)
        await until(lambda: ledger.received.requests.total() == 3)
        world.ask(3)
    assert sorted(ledger.received.requests.values()) == [1, 1, 2]
    assert world.reporter.report.waiting == 0
    assert world.reporter.report.last_success_us > 0
    assert world.reporter.report.failure == ""


async def test_without_feedback_nothing_is_sent(ledger: Receiver) -> None:
    async with running(World(None)) as world:
        assert not world.reporter.report.configured
        assert world.reporter.report.digest == ""
    assert ledger.received.deliveries == 0


async def test_what_was_tallied_before_feedback_went_is_still_told(ledger: Receiver) -> None:
    ledger.answer = lambda _: (503, b"")
    async with running(World(ledger.url)) as world:
        world.ask(1)
        await until(lambda: ledger.received.deliveries > 0)
        world.told = None
        ledger.answer = lambda _: (200, b"")
    assert ledger.received.requests.total() == 1


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([None, None], "RemoteProtocolError"),
        ([(500, b"broken"), (502, b""), (503, b"")], "500: broken"),
        ([(429, b"later"), (408, b"")], "429: later"),
        ([(401, b"no key"), (403, b""), (404, b"")], "401: no key"),
        ([(307, b"elsewhere")], "307: elsewhere"),
    ],
)
async def test_a_failing_ledger_is_told_again_and_counts_once(
    ledger: Receiver, caplog: pytest.LogCaptureFixture, answers: list[tuple[int, bytes] | None], reason: str
) -> None:
    left = iter(answers)
    ledger.answer = lambda _: next(left, (200, b""))
    ledger.keeps = lambda _: True  # even what it does not say that it has taken
    async with running(World(ledger.url)) as world:
        world.ask(1)
        await until(lambda: world.metrics.reports("taken") > 0)
        world.ask(1, 2)
    assert ledger.received.requests.total() == world.asked
    assert ledger.received.deliveries > len(ledger.received.reports)
    assert world.metrics.reports("failed") + world.metrics.reports("postponed") == len(answers)
    assert world.metrics.reports("refused") == 0
    assert reason in caplog.text


async def test_a_refused_report_is_counted_logged_and_in_nobodys_way(
    ledger: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    left = iter([(422, b'{"detail": "exposures.0.salt:\n no"}' + b"x" * 10_000)])
    ledger.answer = lambda _: next(left, (200, b""))
    async with running(World(ledger.url)) as world:
        world.ask(1)
        await until(lambda: world.reporter.report.refused == 1)
        world.ask(2)
        await until(lambda: ledger.received.requests.total() == 1)
        await until(lambda: world.reporter.report.waiting == 0)  # noted once the answer is read
    (refused,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert '422: {"detail": "exposures.0.salt: no"}xxx' in refused
    assert len(refused) < 400


async def test_a_report_that_breaks_the_ledger_does_not_keep_others_from_it(ledger: Receiver) -> None:
    def answer(report: ExposureReport) -> tuple[int, bytes]:
        return (500 if report.sequence == 0 else 200), b""

    ledger.answer = answer
    async with running(World(ledger.url)) as world:
        world.ask(1)
        await until(lambda: world.metrics.reports("postponed") > 0)
        world.ask(2)
        await until(lambda: ledger.received.requests.total() == 1)
        ledger.answer = lambda _: (200, b"")
    assert ledger.received.requests.total() == 2


async def test_a_ledger_that_does_not_answer_is_given_up_and_asked_again(ledger: Receiver) -> None:
    release = threading.Event()

    def slow(_: ExposureReport) -> tuple[int, bytes]:
        release.wait(30)
        return 200, b""

    ledger.answer = slow
    async with running(World(ledger.url, pace=Pace(interval_s=0.02, send_deadline_s=0.5))) as world:
        world.ask(1)
        await until(lambda: world.metrics.reports("failed") > 0)
        assert "no answer within" in world.reporter.report.failure
        ledger.answer = lambda _: (200, b"")
        release.set()
        await until(lambda: world.reporter.report.waiting == 0)
    assert ledger.received.requests.total() == 1


async def test_what_finds_no_room_while_the_ledger_is_away_is_counted_and_told() -> None:
    port = free_port()
    async with running(World(f"http://127.0.0.1:{port}", room=600)) as world:
        unit = 0
        while world.tally.dropped_total < 5:
            world.ask(unit)
            unit += 1
            if unit % 10 == 0:
                await until(lambda: not world.tally.waiting or world.reporter.report.waiting > 1)
        with receiver(port) as ledger:
            await until(lambda: world.reporter.report.waiting == 0 and not world.tally.waiting)
            world.ask(unit)
            await until(lambda: ledger.received.requests.total() + ledger.received.dropped == world.asked)
        assert ledger.received.dropped == world.reporter.report.dropped == world.tally.dropped_total


async def test_what_is_left_at_the_end_waits_for_the_next_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    async with running(World(f"http://127.0.0.1:{port}", tmp_path)) as first:
        first.ask(1, 2, 3)
    assert first.reporter.report.waiting > 0
    assert "reports left at the end" in caplog.text
    with receiver(port) as ledger:
        async with running(World(ledger.url, tmp_path)) as second:
            second.ask(4)
            await until(lambda: ledger.received.requests.total() == 4)
        assert len(ledger.received.servers) == 2
    assert waiting_in(tmp_path) == 0


async def test_closing_does_not_wait_for_an_answer_longer_than_its_deadline(ledger: Receiver, tmp_path: Path) -> None:
    release = threading.Event()

    def slow(_: ExposureReport) -> tuple[int, bytes]:
        release.wait(60)
        return 200, b""

    ledger.answer = slow
    world = World(ledger.url, tmp_path, pace=Pace(interval_s=0.02, send_deadline_s=60))
    async with running(world, close_within_s=1):
        world.ask(1)
        await until(lambda: waiting_in(tmp_path) == 1)
    release.set()
    assert waiting_in(tmp_path) == 1
