"""A store that is frozen, killed or absent costs a deadline, and is used again when it is back.

How exactly the deadline holds is measured by ``tools/bench/sick_store.py``; here nobody may wait for a store that is
away, on however slow a machine.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.contract import Contract
from fairlead.policy import Action, FeatureState, Hydration
from fairlead_server.errors import ContractMismatch, NotReady, StartupError, StoreUnavailable
from support import blocking_redis
from support.models import contract_of
from support.predictors import HOUR, NOON, Rig, contract_for, running, seen
from support.servers import RedisServer, redis_server
from support.store import FeatureRepo, definitions, make_repo
from support.waiting import until

DEADLINE_S = 0.1
SOON_S = 10.0
"""A store that is waited for never comes."""

QUICK = Hydration(deadline_s=DEADLINE_S)
LAST_GOOD = Hydration(deadline_s=DEADLINE_S, on_store_error=Action.LAST_GOOD)
REJECTING = {"policy": {"store_error": Action.REJECT}}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture(params=["awaited", "blocking"])
def repo(request: pytest.FixtureRequest, redis: RedisServer, tmp_path: Path) -> FeatureRepo:
    kind = {"type": blocking_redis.TYPE} if request.param == "blocking" else {}
    made = make_repo(tmp_path / "repo", online_store=redis.online_store | kind)
    _write_plane(made)
    return made


def _write_plane(repo: FeatureRepo) -> None:
    for i in range(8):
        repo.write("plane", {"tailnum": f"N{i}"}, {"seats": i, "maker": "BOEING", "jet": True}, NOON)
    repo.write("origin_weather", {"origin": "EWR"}, {"temp": 39.5, "wind": 5.0}, NOON)


def _without_repo(path: Path) -> tuple[FeatureRepo, Contract]:
    """Make a repository and its contract, then take the registry away."""
    repo = make_repo(path)
    contract = contract_for(repo)
    (path / "registry.db").rename(path / "away.db")
    return repo, contract


async def _until_state(rig: Rig, wanted: FeatureState) -> None:
    async def is_so() -> bool:
        return await rig.state("plane__seats", tailnum="N3") is wanted

    await until(is_so)


async def _all_have_their_own_seats(rig: Rig) -> bool:
    """Ask for eight planes at once, eight times over; whatever is read must be the plane's own."""
    answers = await asyncio.gather(*(rig.ask({"tailnum": f"N{i % 8}"}) for i in range(64)))
    assert all(seen(answer, "plane__seats") in (i % 8, -7) for i, answer in enumerate(answers))
    return not any(answer.degraded for answer in answers)


async def test_a_frozen_store_costs_the_deadline_and_is_used_again_when_it_thaws(
    repo: FeatureRepo, redis: RedisServer, tmp_path: Path
) -> None:
    async with running(repo.path, contract_for(repo), tmp_path, hydration=QUICK) as rig:
        assert await rig.state("plane__seats", tailnum="N3") is FeatureState.PRESENT
        redis.freeze()
        for _ in range(5):
            async with asyncio.timeout(SOON_S):
                answers = await asyncio.gather(*(rig.ask({"tailnum": "N3"}) for _ in range(10)))
            assert all(answer.degraded for answer in answers)
            assert all(
                set(answer.states.values()) == {(FeatureState.STORE_ERROR,)} for answer in answers if answer.states
            )
            assert seen(answers[0], "departure__evening") == 0
        assert rig.predictor.degraded
        assert rig.predictor.ready
        assert rig.count("fairlead_degraded") == 1
        assert rig.count("fairlead_store_reads_total", outcome="timeout") > 0
        redis.thaw()
        await until(lambda: _all_have_their_own_seats(rig))
        assert not rig.predictor.degraded


async def test_while_a_read_is_stuck_further_requests_fail_at_once_and_are_counted(
    repo: FeatureRepo, redis: RedisServer, tmp_path: Path
) -> None:
    async with running(repo.path, contract_for(repo), tmp_path, hydration=Hydration(deadline_s=0.5)) as rig:
        redis.freeze()
        await rig.ask({})
        answers = await asyncio.gather(*(rig.ask({}) for _ in range(20)))
        assert all(answer.degraded for answer in answers)
        assert rig.count("fairlead_store_reads_total", outcome="timeout") == 1
        assert rig.count("fairlead_store_reads_total", outcome="refused") == 20
        redis.thaw()
        await _until_state(rig, FeatureState.PRESENT)


async def test_the_event_loop_goes_on_while_the_store_is_frozen(
    repo: FeatureRepo, redis: RedisServer, tmp_path: Path
) -> None:
    async with running(repo.path, contract_for(repo), tmp_path, hydration=QUICK) as rig:
        redis.freeze()
        asked = asyncio.create_task(rig.ask({}))
        turns = 0
        while not asked.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert turns > 5
        redis.thaw()


async def test_a_killed_store_is_used_again_after_its_restart(redis: RedisServer, tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", online_store=redis.online_store)
    _write_plane(repo)
    async with running(repo.path, contract_for(repo), tmp_path, hydration=QUICK) as rig:
        redis.kill()
        async with asyncio.timeout(SOON_S):
            answer = await rig.ask({"tailnum": "N3"})
        assert answer.states is not None
        assert answer.states["plane__seats"] == (FeatureState.STORE_ERROR,)
        redis.start()
        await _until_state(rig, FeatureState.NOT_FOUND)
        await asyncio.to_thread(_write_plane, make_repo(tmp_path / "again", online_store=redis.online_store))
        await _until_state(rig, FeatureState.PRESENT)


async def test_the_last_good_value_stands_in_until_it_is_stale(
    repo: FeatureRepo, redis: RedisServer, tmp_path: Path
) -> None:
    async with running(repo.path, contract_for(repo), tmp_path, hydration=LAST_GOOD) as rig:
        await rig.ask({"tailnum": "N3"})
        redis.freeze()
        answer = await rig.ask({"tailnum": "N3"}, {"tailnum": "N4"})
        assert answer.states is not None
        assert answer.states["plane__seats"] == (FeatureState.STORE_ERROR, FeatureState.STORE_ERROR)
        assert answer.degraded
        assert answer.outputs["seen_plane__seats"].tolist() == [3, -7]
        assert seen(answer, "plane__maker") == "BOEING"
        assert seen(answer, "origin_weather__temp") == 39.5
        rig.set_time(NOON + 3 * HOUR)
        assert seen(await rig.ask({}), "origin_weather__temp") == 39.5
        rig.set_time(NOON + 4 * HOUR)
        assert math.isnan(seen(await rig.ask({}), "origin_weather__temp"))
        redis.thaw()


async def test_a_feature_that_rejects_store_errors_makes_the_request_fail_retryably(
    repo: FeatureRepo, redis: RedisServer, tmp_path: Path
) -> None:
    contract = contract_for(repo, plane__seats=REJECTING)
    async with running(repo.path, contract, tmp_path, hydration=QUICK) as rig:
        redis.freeze()
        with pytest.raises(StoreUnavailable, match="plane__seats") as failed:
            await rig.ask({})
        assert failed.value.retryable
        assert failed.value.field == "plane__seats"
        redis.thaw()


async def test_without_a_store_at_start_a_forgiving_model_is_ready_and_degraded_and_recovers(
    repo: FeatureRepo, redis: RedisServer, tmp_path: Path
) -> None:
    contract = contract_for(repo)
    redis.freeze()
    async with running(repo.path, contract, tmp_path, hydration=QUICK, startup_deadline_s=0.3) as rig:
        assert rig.predictor.ready
        assert rig.predictor.degraded
        answer = await rig.ask({"hour": 20})
        assert answer.states is not None
        assert set(answer.states.values()) == {(FeatureState.STORE_ERROR,)}
        assert seen(answer, "departure__evening") == 1
        redis.thaw()
        await until(lambda: not rig.predictor.degraded)
        assert await rig.state("plane__seats", tailnum="N3") is FeatureState.PRESENT


async def test_without_a_store_at_start_a_strict_model_is_not_ready_and_recovers(
    repo: FeatureRepo, redis: RedisServer, tmp_path: Path
) -> None:
    contract = contract_for(repo, plane__seats=REJECTING)
    redis.freeze()
    async with running(repo.path, contract, tmp_path, hydration=QUICK, startup_deadline_s=0.3) as rig:
        assert not rig.predictor.ready
        await until(lambda: "online store" in rig.connection.reason)
        with pytest.raises(NotReady, match="online store does not answer"):
            await rig.ask({})
        redis.thaw()
        await until(lambda: rig.predictor.ready)
        await _until_state(rig, FeatureState.PRESENT)


async def test_a_store_that_comes_within_the_startup_deadline_is_waited_for(tmp_path: Path) -> None:
    repo, contract = _without_repo(tmp_path / "repo")
    asyncio.get_running_loop().call_later(0.3, (repo.path / "away.db").rename, repo.path / "registry.db")
    async with running(repo.path, contract, tmp_path, startup_deadline_s=10) as rig:
        assert rig.predictor.ready
        assert not rig.predictor.degraded


async def test_without_a_registry_even_on_demand_features_are_substituted_until_it_is_there(tmp_path: Path) -> None:
    repo, contract = _without_repo(tmp_path / "repo")
    async with running(repo.path, contract, tmp_path, startup_deadline_s=0.1) as rig:
        assert rig.predictor.degraded
        assert rig.predictor.fingerprints.registry is None
        answer = await rig.ask({"hour": 20})
        assert answer.degraded
        assert seen(answer, "departure__evening") == -7
        assert not (repo.path / "registry.db").exists()
        (repo.path / "away.db").rename(repo.path / "registry.db")
        await until(lambda: not rig.predictor.degraded)
        assert seen(await rig.ask({"hour": 20}), "departure__evening") == 1
        assert rig.predictor.fingerprints.registry == contract.fingerprint


async def test_a_missing_sqlite_store_is_waited_for_and_not_made(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo")
    contract = contract_for(repo)
    repo.online_path.unlink()
    async with running(repo.path, contract, tmp_path, startup_deadline_s=0.1) as rig:
        assert rig.predictor.degraded
        assert "does not exist; run `feast apply`" in rig.connection.reason
        assert not repo.online_path.exists()


async def test_a_registry_that_comes_late_and_does_not_fit_ends_readiness(tmp_path: Path) -> None:
    repo, contract = _without_repo(tmp_path / "repo")
    other = make_repo(tmp_path / "other", apply=False)
    objects: list[Any] = [thing for thing in definitions(other.path) if thing.name != "small"]
    objects.append(type(definitions(other.path)[-1])(name="small", features=[objects[3], objects[4]]))
    other.store.apply(objects)
    async with running(repo.path, contract, tmp_path, startup_deadline_s=0.1) as rig:
        assert rig.predictor.ready
        (other.path / "registry.db").rename(repo.path / "registry.db")
        await until(lambda: not rig.predictor.ready)
        with pytest.raises(NotReady, match="plane__seats is not registered"):
            await rig.ask({})


async def test_a_sqlite_store_whose_readers_wait_for_writers_is_refused_with_the_fix(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", online_store={"type": "sqlite", "path": "online_store.db"})
    with pytest.raises(StartupError, match=r"type: fairlead\.features\.sqlite\.WalSqliteOnlineStore"):
        async with running(repo.path, contract_of(repo.describe()), tmp_path):
            pass


async def test_a_service_that_nobody_registered_is_a_mismatch_naming_those_that_are(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo")
    contract = contract_for(repo).model_copy(update={"feature_service": "late_boosted"})
    with pytest.raises(ContractMismatch, match=r"late_boosted is not in the registry .*registered: small"):
        async with running(repo.path, contract, tmp_path):
            pass
