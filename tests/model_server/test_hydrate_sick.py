"""A store that swallows, dawdles or hangs up is left alone, and used again when it is well; its answers are marked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig

from fairlead.policy import FeatureState, Hydration
from fairlead_server.hydrate.redis_client import open_client, parse
from support.predictors import NOON, Rig, contract_for, running, seen
from support.proxies import Proxy, Way
from support.redis_topologies import cluster, sentinel
from support.servers import RedisServer, redis_server
from support.store import FeatureRepo, make_repo
from support.waiting import until

QUICK = Hydration(deadline_s=0.1)
PLANES = 8


def write_planes(repo: FeatureRepo, seats: int = 100) -> None:
    for i in range(PLANES):
        repo.write("plane", {"tailnum": f"N{i}"}, {"seats": seats + i, "maker": "BOEING", "jet": True}, NOON)


async def states(rig: Rig, seats: int = 100) -> set[FeatureState]:
    """Ask for all planes at once; what is not the plane's own must be a default, and said to be one."""
    answers = await asyncio.gather(*(rig.ask({"tailnum": f"N{i}"}) for i in range(PLANES)))
    found = set()
    for i, answer in enumerate(answers):
        assert answer.states is not None
        (state,) = answer.states["plane__seats"]
        assert seen(answer, "plane__seats") == (seats + i if state is FeatureState.PRESENT else -7)
        assert answer.degraded is any(of == (FeatureState.STORE_ERROR,) for of in answer.states.values())
        found.add(state)
    return found


async def all_present(rig: Rig, seats: int = 100) -> bool:
    return await states(rig, seats) == {FeatureState.PRESENT}


async def left_alone(rig: Rig) -> bool:
    """Ask, and tell whether the breaker was open meanwhile."""
    opened = rig.count("fairlead_store_circuits_total", circuit="open")
    return await states(rig) == {FeatureState.STORE_ERROR} and opened > 0


@asynccontextmanager
async def behind_proxy(folder: Path, *, delay_s: float = 0) -> AsyncIterator[tuple[Rig, Proxy, RedisServer]]:
    """Run a predictor whose store is reached through a proxy."""
    with redis_server(folder) as server:
        repo = make_repo(folder / "repo", online_store=server.online_store)
        write_planes(repo)
        async with Proxy(server.port, delay_s=delay_s).running() as proxy:
            through = make_repo(folder / "through", online_store=proxy.online_store, apply=False)
            (repo.path / "registry.db").rename(through.path / "registry.db")
            async with running(through.path, contract_for(through), folder, hydration=QUICK) as rig:
                await until(lambda: all_present(rig))
                yield rig, proxy, server


@pytest.mark.parametrize("way", [Way.SWALLOWED, Way.SLOW, Way.CUT])
async def test_a_store_behind_a_sick_network_is_left_alone_and_found_again_by_itself(tmp_path: Path, way: Way) -> None:
    async with behind_proxy(tmp_path, delay_s=0.4) as (rig, proxy, _):
        proxy.way = way
        await until(lambda: left_alone(rig))
        proxy.way = Way.OPEN
        # Nobody asks for anything until it is well: attempts are the breaker's own.
        await until(lambda: not rig.predictor.degraded)
        await until(lambda: all_present(rig))
        for circuit in ("open", "half_open", "closed"):
            assert rig.count("fairlead_store_circuits_total", circuit=circuit) > 0


async def test_a_store_that_comes_and_goes_never_gives_a_wrong_value(tmp_path: Path) -> None:
    async with behind_proxy(tmp_path) as (rig, proxy, _):
        for _ in range(4):
            proxy.way = Way.CUT
            await until(lambda: _fails(rig))
            proxy.way = Way.OPEN
            await until(lambda: all_present(rig))


async def test_connections_that_nobody_waits_for_any_more_are_closed(tmp_path: Path) -> None:
    with cluster(tmp_path) as store:
        repo = make_repo(tmp_path / "repo", online_store=store.online_store)
        write_planes(repo)
        sick = next(node for node in store.nodes if any(b"N0" in key for key in store.keys(node)))
        async with running(repo.path, contract_for(repo), tmp_path, hydration=QUICK) as rig:
            await until(lambda: all_present(rig))
            before = len(_clients(sick))
            sick.freeze()
            for _ in range(12):
                assert FeatureState.STORE_ERROR in await states(rig)
            sick.thaw()
            await until(lambda: all_present(rig))
            await until(lambda: len(_clients(sick)) <= before + 2)


async def test_a_master_that_thaws_after_its_failover_is_not_read_again(tmp_path: Path) -> None:
    with sentinel(tmp_path) as store:
        repo = make_repo(tmp_path / "repo", online_store=store.online_store)
        write_planes(repo)
        async with running(repo.path, contract_for(repo), tmp_path, hydration=QUICK) as rig:
            await until(lambda: all_present(rig))
            store.wait_for_replica()
            store.master.freeze()
            await until(lambda: _fails(rig))
            await until(lambda: store.master_port() == store.replica.port, timeout_s=60)
            await until(lambda: all_present(rig), timeout_s=60)
            newer = make_repo(tmp_path / "newer", online_store=store.online_store)
            for i in range(PLANES):
                row = {"seats": 200 + i, "maker": "BOEING", "jet": True}
                newer.write("plane", {"tailnum": f"N{i}"}, row, NOON.replace(minute=1))
            store.master.thaw()
            for _ in range(20):
                assert await states(rig, seats=200) <= {FeatureState.PRESENT, FeatureState.STORE_ERROR}
            await until(lambda: all_present(rig, seats=200))


@pytest.mark.parametrize(
    "string",
    [
        "localhost:6379",
        "redis_master:6379,db=1,ssl=true,password=secret",
        "h1:7000,h2:7001,skip_full_coverage_check=true,username=reader,password=a=b,socket_timeout=0.05",
        'h1:26379,h2:26379,password=12345,sentinel_kwargs={"password": "x"}',
    ],
)
def test_a_connection_string_is_read_as_feast_reads_it(string: str) -> None:
    servers, settings = parse(string)
    nodes, kwargs = RedisOnlineStore._parse_connection_string(string)
    assert servers == [(node["host"], int(node["port"])) for node in nodes]
    assert settings == kwargs


@pytest.mark.parametrize(
    "config",
    [
        {"redis_type": "redis", "connection_string": "h1:1,db=1,ssl=true,ssl_cert_reqs=none,max_connections=5"},
        {
            "redis_type": "redis_cluster",
            "connection_string": "h1:1,h2:2,skip_full_coverage_check=true,require_full_coverage=false,ssl=true",
        },
        {
            "redis_type": "redis_sentinel",
            "sentinel_master": "features",
            "connection_string": 'h1:1,socket_timeout=0.1,sentinel_kwargs={"password": "x"},ssl=true',
        },
    ],
)
async def test_whatever_feast_takes_gives_a_client(config: dict[str, Any]) -> None:
    client = open_client(RedisOnlineStoreConfig(type="redis", **config), 0.1)
    await client.close()


async def _fails(rig: Rig) -> bool:
    return FeatureState.STORE_ERROR in await states(rig)


def _clients(server: RedisServer) -> list[Any]:
    with redis.Redis(port=server.port) as asked:
        return [one for one in asked.client_list(_type="normal") if one["addr"]]
