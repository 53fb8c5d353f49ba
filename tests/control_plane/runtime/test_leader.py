"""One writer: who holds the Lease writes, and has stopped before another starts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from fairlead.clock import SystemClock
from fairlead_operator.platforms.kubernetes.client import KubeClient
from fairlead_operator.platforms.kubernetes.errors import LeaseLost
from fairlead_operator.platforms.kubernetes.kinds import CONFIG_MAP, LEASE
from fairlead_operator.runtime.keys import ObjectKey
from fairlead_operator.runtime.leader import Leader, Terms
from support.kube import Hang, KubeApiServer, LoseAnswer, Refuse, calls
from support.operators import client_of, config_map, dice
from support.waiting import until

LEASE_KEY = ObjectKey("default", "fairlead-operator")
TERMS = Terms(duration_s=0.6, renew_deadline_s=0.4, retry_s=0.05)


class StoppableClock:
    """A clock that can leap, as it does for a process that was stopped and goes on."""

    def __init__(self) -> None:
        self.leapt_s = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.leapt_s


class Candidate:
    """A process that writes all the time while it leads."""

    def __init__(self, client: KubeClient, name: str, terms: Terms = TERMS) -> None:
        self.clock = StoppableClock()
        self.changes: list[bool] = []
        self.leader = Leader(
            client,
            LEASE_KEY,
            name,
            now=self.clock,
            clock=SystemClock(),
            randomness=dice(),
            terms=terms,
            changed=self.changes.append,
        )
        self.name = name
        self.api = client.fenced(self.leader.fence)
        self.lost = 0
        self.awake = asyncio.Event()
        self.awake.set()
        self.task = asyncio.create_task(self.leader.run(self.work))

    async def work(self) -> None:
        while True:
            await self.awake.wait()
            try:
                await self.api.apply(CONFIG_MAP, config_map("world", writer=self.name))
            except LeaseLost:
                self.lost += 1
                raise
            await asyncio.sleep(0.02)

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


def writers(server: KubeApiServer) -> list[str]:
    """Return who wrote, in order, repetitions left out."""
    bodies = [record.call.body.decode() for record in server.writes if record.call.plural == "configmaps"]
    names = [name for body in bodies for name in ("a", "b") if f'"writer": "{name}"' in body]
    return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]


def holder(server: KubeApiServer) -> str:
    lease = server.get("Lease", "default", "fairlead-operator")
    return str(lease["spec"]["holderIdentity"]) if lease else ""


def is_held_by(server: KubeApiServer, name: str) -> Callable[[], bool]:
    return lambda: holder(server) == name


async def test_one_of_two_writes_and_the_other_takes_over_when_it_has_ended(
    server: KubeApiServer, client: KubeClient
) -> None:
    a = Candidate(client, "a")
    await until(lambda: a.leader.is_leading)
    b = Candidate(client, "b")
    await asyncio.sleep(1.0)
    assert writers(server) == ["a"]
    await a.end()
    assert holder(server) == ""
    await until(lambda: b.leader.is_leading, timeout_s=0.3)
    await until(lambda: writers(server) == ["a", "b"])
    await b.end()
    lease = server.get("Lease", "default", "fairlead-operator")
    assert lease is not None
    assert lease["spec"]["leaseTransitions"] == 1


async def test_a_holder_that_vanishes_is_succeeded_after_the_lease_and_not_before(
    server: KubeApiServer, client: KubeClient, tmp_path: Path
) -> None:
    async with client_of(server, tmp_path) as doomed:
        a = Candidate(doomed, "a")
        await until(is_held_by(server, "a"))
        b = Candidate(client, "b")
        server.faults.inject(Refuse(503), lambda call: call.user_agent == "a-is-gone", times=1000)
        doomed._client.user_agent = "a-is-gone"
        loop = asyncio.get_running_loop()
        vanished = loop.time()
        await until(lambda: b.leader.is_leading)
        assert TERMS.renew_deadline_s < loop.time() - vanished < 2 * TERMS.duration_s
        assert not a.leader.is_leading
        assert a.changes == [True, False]
        await until(lambda: writers(server)[-1] == "b")
        await a.end()
        await b.end()


async def test_a_process_that_was_stopped_past_its_lease_writes_nothing_when_it_goes_on(
    server: KubeApiServer, client: KubeClient
) -> None:
    a = Candidate(client, "a")
    await until(lambda: bool(writers(server)))
    a.awake.clear()  # in the middle of its reconcile, so to speak
    await asyncio.sleep(0.1)  # what was under way has been answered
    a.clock.leapt_s += 100
    server.forget_requests()
    a.awake.set()
    await until(lambda: a.changes == [True, False])
    assert [record for record in server.writes if record.call.plural == "configmaps"] == []
    await until(lambda: a.leader.is_leading)
    assert a.lost <= 1
    await a.end()


async def test_it_writes_no_more_once_it_cannot_renew(server: KubeApiServer, client: KubeClient) -> None:
    a = Candidate(client, "a")
    await until(lambda: bool(writers(server)))
    server.faults.inject(Hang(), calls("update", "leases"), times=1000)
    await until(lambda: not a.leader.is_leading, timeout_s=1.5)
    with pytest.raises(LeaseLost):
        a.leader.fence()
    server.forget_requests()
    await asyncio.sleep(0.2)
    assert [record for record in server.writes if record.call.plural == "configmaps"] == []
    await a.end()


async def test_a_lease_that_another_wrote_is_lost_at_once(server: KubeApiServer, client: KubeClient) -> None:
    a = Candidate(client, "a")
    await until(lambda: a.leader.is_leading)
    server.patch("Lease", "default", "fairlead-operator", {"spec": {"holderIdentity": "thief"}})
    await until(lambda: a.changes == [True, False], timeout_s=0.35)
    assert holder(server) == "thief"
    await until(lambda: a.leader.is_leading)
    await a.end()


async def test_renewals_outlive_what_passes(server: KubeApiServer, client: KubeClient) -> None:
    a = Candidate(client, "a")
    await until(lambda: a.leader.is_leading)
    server.faults.inject(Refuse(500), calls("update", "leases"), times=2)
    await asyncio.sleep(0.8)
    assert a.changes == [True]
    await a.end()


async def test_a_renewal_whose_answer_is_lost_loses_nothing(server: KubeApiServer, client: KubeClient) -> None:
    a = Candidate(client, "a")
    await until(lambda: a.leader.is_leading)
    server.faults.inject(LoseAnswer(), calls("update", "leases"), times=2)
    await asyncio.sleep(0.8)
    assert a.changes == [True]
    await a.end()


async def test_of_many_candidates_one_at_a_time_leads(client: KubeClient) -> None:
    candidates = [Candidate(client, name) for name in "abcdef"]
    for _ in range(40):
        await asyncio.sleep(0.02)
        assert sum(candidate.leader.is_leading for candidate in candidates) <= 1
    assert any(candidate.leader.is_leading for candidate in candidates)
    await asyncio.gather(*(candidate.end() for candidate in candidates))


async def test_work_that_ends_releases_the_lease(server: KubeApiServer, client: KubeClient) -> None:
    async def work() -> None:
        await asyncio.sleep(0.01)

    leader = Leader(
        client,
        LEASE_KEY,
        "a",
        now=asyncio.get_running_loop().time,
        clock=SystemClock(),
        randomness=dice(),
        terms=TERMS,
    )
    await leader.run(work)
    assert holder(server) == ""


async def test_work_that_fails_ends_it_and_releases_the_lease(server: KubeApiServer, client: KubeClient) -> None:
    async def work() -> None:
        raise KeyError("a bug")

    leader = Leader(
        client,
        LEASE_KEY,
        "a",
        now=asyncio.get_running_loop().time,
        clock=SystemClock(),
        randomness=dice(),
        terms=TERMS,
    )
    with pytest.raises(KeyError):
        await leader.run(work)
    assert holder(server) == ""


async def test_the_lease_says_who_and_for_how_long(server: KubeApiServer, client: KubeClient) -> None:
    a = Candidate(client, "a", Terms(duration_s=15, renew_deadline_s=10, retry_s=2))
    await until(lambda: a.leader.is_leading)
    lease = await client.get(LEASE, LEASE_KEY)
    assert lease["spec"]["holderIdentity"] == "a"
    assert lease["spec"]["leaseDurationSeconds"] == 15
    assert lease["spec"]["renewTime"].endswith("Z")
    assert server.get("Lease", "default", "fairlead-operator") is not None
    await a.end()


def test_terms_that_would_allow_two_writers_are_refused() -> None:
    with pytest.raises(ValueError, match="renew deadline"):
        Terms(duration_s=10, renew_deadline_s=10, retry_s=2)
