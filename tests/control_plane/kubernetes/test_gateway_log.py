"""Gateways' logs: whatever happens to the log, the operator or the ledger, each line is told once."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.assignment import Layout, assign
from fairlead.feedback.gateway import HEARTBEAT, gateway_prefix
from fairlead.feedback.keys import KeyRing, SigningKey
from fairlead.feedback.messages import MOST_EXPOSURES, ExposureReport
from fairlead.route import ExperimentRoute, RouteKey
from fairlead_operator.platforms.kubernetes.client import KubeClient
from fairlead_operator.platforms.kubernetes.gateways import Selected
from fairlead_operator.platforms.kubernetes.unanswered.logs import GatewayLogs
from fairlead_operator.platforms.kubernetes.unanswered.minutes import (
    MINUTE_US,
    Minutes,
    Told,
    minute_of,
    reports_of,
    time_us,
)
from fairlead_operator.runtime.keys import ObjectKey
from fairlead_operator.runtime.ledger import LedgerClient
from support.exposure_receiver import Receiver, receiver, taken
from support.kube import ContainerLog, KubeApiServer, PodLogs, Refuse, calls
from support.kube.logs import stamp
from support.operators import client_of
from support.waiting import until

SALT = "flights/delay/e1"
LAYOUT = Layout.of("logistic", {"boosted": 5000})
KEY = RouteKey("k1", b"k" * 16)
RING = KeyRing((SigningKey("k1", b"s" * 16),), b"u" * 16).of("flights/delay")
DELAY = ObjectKey("flights", "delay")
TOLD = Told(DELAY, SALT, "http://ledger", None, RING, (KEY,))
LABELS = {"istio": "ingressgateway"}
PLACE = Selected("istio-ingress", LABELS, (LABELS,))
NOW_US = 1_800_000_000 * 1_000_000
BEGUN_US = NOW_US - 2_000_000
FOREIGN = b'[2026-01-01T00:00:00.000Z] "GET / HTTP/1.1" 503 UF'


def written(unit: str, *, key: RouteKey = KEY, salt: str = SALT) -> bytes:
    """Return a line as Envoy writes it."""
    variant = assign(unit, salt, LAYOUT)
    route = ExperimentRoute(salt, 0, f"delay-{variant}-1", variant, LAYOUT, "header:x-unit-id")
    fields = {"experiment": route.sign(key), "unit": unit, "flags": "UC", "duration_ms": 3, "at_ms": BEGUN_US // 1000}
    return json.dumps({"fairlead": "unanswered", **fields}).encode()


def stamped(at_us: int, line: bytes) -> bytes:
    return stamp(at_us) + b" " + line


@pytest.mark.parametrize(
    ("line", "expected_us"),
    [
        (b"2027-01-15T08:00:00.000001999Z x", NOW_US + 1),
        (b"2027-01-15T09:00:00+01:00 x", NOW_US),
        (b"2027-01-15T08:00:00 x", None),
        (b"2027-01-15T08:00:00Z", None),
        (b"\xff x", None),
        (b"", None),
    ],
)
def test_the_time_of_a_line_is_the_apis(line: bytes, expected_us: int | None) -> None:
    assert time_us(line) == expected_us


def test_a_minute_with_many_lines_has_several_reports_of_which_each_fits() -> None:
    lines = sorted(stamped(NOW_US + n, written(f"N{n % 9}")) for n in range(MOST_EXPOSURES + 3))
    reports, lost = reports_of(lines, minute_of(NOW_US), TOLD, "one")
    assert [sum(block.errors for block in report.blocks) for report in reports] == [MOST_EXPOSURES, 3]
    assert len({report.sequence for report in reports}) == 2
    assert lost == 0
    assert {report.server.startswith(gateway_prefix(SALT)) for report in reports} == {True}
    assert {e.at_us for e in reports[0].exposures} == {BEGUN_US}


@pytest.mark.parametrize(
    "odd",
    [
        FOREIGN,
        b"{",
        b'{"fairlead": "unanswered"}',
        written("N1", key=RouteKey("k1", b"x" * 16)),
        written("N1", key=RouteKey("k2", b"k" * 16)),
        written("N1", salt="flights/other/e1"),
    ],
    ids=["another line", "cut", "no header", "forged", "an unknown key", "another deployment"],
)
def test_of_what_is_not_this_deployments_nothing_is_told(odd: bytes) -> None:
    lines = [stamped(NOW_US, odd), stamped(NOW_US + 1, written("N2"))]
    assert reports_of(lines, 0, TOLD, "one") == reports_of(lines[1:], 0, TOLD, "one")


def _whole(lines: list[bytes]) -> set[str]:
    """Return what is told of a log by who reads it from its beginning to its end."""
    return _told_by(Minutes(minute_of(NOW_US)), lines)


def _told_by(minutes: Minutes, lines: list[bytes]) -> set[str]:
    for line in lines:
        minutes.take(line)
    told = [reports_of(some, minute, TOLD, "one")[0] for minute, some in minutes.rest()]
    return {report.model_dump_json() for reports in told for report in reports}


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.integers(0, 5 * MINUTE_US - 1), min_size=1, max_size=30),
    restart=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_whoever_begins_anew_at_any_minute_tells_the_same(times: list[int], restart: int, seed: int) -> None:
    log = [stamped(NOW_US + at_us, written(f"N{n % 4}")) for n, at_us in enumerate(sorted(times))]
    whole = _whole(log)
    dice = random.Random(seed)  # noqa: S311 -- shuffles
    again = [*log, *dice.sample(log, len(log) // 2)]
    dice.shuffle(again)
    begun = _told_by(Minutes(minute_of(NOW_US) + restart), again)
    assert begun <= whole
    assert begun == {one for one in whole if minute_of(NOW_US) + restart <= json.loads(one)["sequence"] // 64}


@dataclass(slots=True)
class HandClock:
    us: int = NOW_US

    def now_us(self) -> int:
        return self.us


@dataclass(slots=True)
class World:
    """A gateway of one pod, a ledger, and one leader after the other."""

    server: KubeApiServer
    client: KubeClient
    ledger: Receiver
    clock: HandClock
    log: ContainerLog
    written: int = 0
    life: int = 1
    enqueued: int = 0

    def write(self, count: int = 1) -> None:
        """Have that many requests not answered."""
        for _ in range(count):
            self.clock.us += 1000
            self.log.write(self.clock.us, FOREIGN, written(f"N{self.written}"))
            self.written += 1

    @property
    def told(self) -> int:
        return self.ledger.received.in_blocks

    @property
    def beats(self) -> int:
        return sum(sequence == HEARTBEAT for _, sequence in self.ledger.received.reports)

    async def wait_told(self) -> None:
        """Let minutes pass until all is told."""
        self.clock.us += 2 * MINUTE_US
        await until(lambda: self.told >= self.written, timeout_s=30)
        assert self.told == self.written
        assert set(self.ledger.received.requests.values()) == {1}, "each unit asked once"

    @asynccontextmanager
    async def leader(self) -> AsyncIterator[GatewayLogs]:
        """Have somebody lead, who ends without a word."""
        async with httpx.AsyncClient(trust_env=False) as session:
            ledger = LedgerClient(session, 5, lambda: None)
            logs = GatewayLogs(self.client, ledger, self.clock, self._enqueue, every_s=0.1)
            logs.watch(replace(TOLD, ledger=self.ledger.url), [PLACE])
            task = asyncio.create_task(logs.run())
            try:
                yield logs
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def restart(self) -> None:
        """End the gateway's container, and begin another life of it."""
        self.log.end()
        before, self.log = self.log, ContainerLog()
        self.server.logs[("istio-ingress", "gateway")] = PodLogs(self.log, before)
        self.server.delete("Pod", "istio-ingress", "gateway")
        life = {"startedAt": _iso(NOW_US), "finishedAt": _iso(self.clock.us)}
        ended = {"containerID": f"containerd://{self.life}", **life}
        self.life += 1
        self.server.create(_pod(self.life, self.clock.us, lastState={"terminated": ended}))

    def _enqueue(self, key: ObjectKey) -> None:
        assert key == DELAY
        self.enqueued += 1


def _pod(life: int, at_us: int, **more: Any) -> dict[str, Any]:
    running = {"state": {"running": {"startedAt": _iso(at_us)}}, "containerID": f"containerd://{life}", **more}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "gateway", "namespace": "istio-ingress", "labels": LABELS},
        "status": {"containerStatuses": [{"name": "istio-proxy", **running}]},
    }


def _iso(at_us: int) -> str:
    return stamp(at_us).split(b".")[0].decode() + "Z"


@pytest.fixture
def ledger() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture
async def world(tmp_path: Path, ledger: Receiver) -> AsyncIterator[World]:
    async with KubeApiServer(namespaces=["istio-ingress"]) as server, client_of(server, tmp_path) as client:
        found = World(server, client, ledger, HandClock(), ContainerLog())
        server.logs[("istio-ingress", "gateway")] = PodLogs(found.log)
        server.create(_pod(1, NOW_US))
        yield found


async def test_each_line_is_told_once_and_a_quiet_minute_by_a_heartbeat(world: World) -> None:
    async with world.leader() as logs:
        world.write(3)
        await world.wait_told()
        world.clock.us += MINUTE_US
        await until(lambda: world.beats > 0)
        world.write(2)
        await world.wait_told()
        await until(lambda: logs.noted.told == 5)
        assert (logs.noted.late, logs.noted.lost, logs.noted.gap_us) == (0, 0, 0)


async def test_a_new_leader_tells_what_the_last_one_did_not_and_nothing_twice(world: World) -> None:
    for _ in range(3):
        async with world.leader():
            world.write(2)
            await world.wait_told()
            world.write(2)  # told by the next one
    async with world.leader(), world.leader():  # one that has not heard yet that it leads no more
        await world.wait_told()


async def test_what_is_rotated_away_has_been_read(world: World) -> None:
    async with world.leader() as logs:
        world.write(1)
        await world.wait_told()
        for _ in range(3):
            begun = len(world.server.requests)
            world.write(2)
            await asyncio.sleep(0.3)
            world.log.rotate()
            world.write(1)
            await world.wait_told()
            assert len(world.server.requests) > begun
        assert logs.noted.gap_us == 0


async def test_a_ledger_that_is_away_is_told_later(world: World, ledger: Receiver) -> None:
    def away(_: ExposureReport) -> tuple[int, bytes]:
        return 503, b"{}"

    ledger.answer = away
    async with world.leader():
        world.write(2)
        world.clock.us += 2 * MINUTE_US
        await asyncio.sleep(1.5)
        assert world.told == 0
        ledger.answer = taken
        await world.wait_told()


async def test_the_last_words_of_a_gateway_that_died_are_told(world: World) -> None:
    async with world.leader():
        world.write(2)
        world.restart()
        world.write(1)
        await world.wait_told()
    world.write(1)
    world.restart()
    async with world.leader():
        await world.wait_told()


async def test_a_pod_that_has_gone_is_told_of_before_its_minute_is_over(world: World) -> None:
    async with world.leader():
        await until(lambda: any(r.call.subresource == "log" for r in world.server.requests))
        world.write(2)
        await asyncio.sleep(0.5)
        world.log.end()
        world.server.delete("Pod", "istio-ingress", "gateway")
        del world.server.logs[("istio-ingress", "gateway")]
        await until(lambda: world.told == 2)


async def test_a_log_that_may_not_be_read_is_a_problem_until_it_may(world: World) -> None:
    refused = Refuse(403, "Forbidden", "pods/log is forbidden")
    world.server.faults.inject(refused, calls(resource="pods", subresource="log"), times=5)
    async with world.leader() as logs:
        world.write(1)
        await until(lambda: logs.problem(DELAY) is not None)
        problem = logs.problem(DELAY)
        assert problem is not None
        assert "istio-ingress" in problem.message
        assert (problem.stops_growth, problem.stops_route, problem.stops_servers, problem.stops_split) == (False,) * 4
        await world.wait_told()
        assert logs.problem(DELAY) is None
        assert world.enqueued == 2


async def test_nobody_reads_a_log_of_which_nobody_is_told(world: World) -> None:
    async with world.leader() as logs:
        await until(lambda: logs.followed == 1)
        logs.forget(DELAY)
        await until(lambda: logs.followed == 0)
