"""Redis with TLS and users, behind Sentinel and as a Cluster is read directly, and gives what Feast gives."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from fairlead.policy import FeatureState, Hydration
from support.predictors import NOON, Rig, contract_for, running, seen
from support.redis_topologies import Cluster, cluster, sentinel, tls_server
from support.store import FeatureRepo, make_repo
from support.waiting import until

PLANES = 24
QUICK = Hydration(deadline_s=0.3)


def seats_of(plane: int) -> int:
    return 1000 + plane


def write_planes(repo: FeatureRepo) -> None:
    for i in range(PLANES):
        repo.write("plane", {"tailnum": f"N{i}"}, {"seats": seats_of(i), "maker": "BOEING", "jet": True}, NOON)


async def ask_all(rig: Rig) -> list[FeatureState]:
    """Ask for every plane in a request of its own, and return the states; a value must be the plane's own."""
    answers = await asyncio.gather(*(rig.ask({"tailnum": f"N{i}"}) for i in range(PLANES)))
    states = []
    for i, answer in enumerate(answers):
        assert answer.states is not None
        (state,) = answer.states["plane__seats"]
        assert seen(answer, "plane__seats") == (seats_of(i) if state is FeatureState.PRESENT else -7)
        assert answer.degraded is (FeatureState.STORE_ERROR in {of_all[0] for of_all in answer.states.values()})
        states.append(state)
    return states


async def all_are_present(rig: Rig) -> bool:
    return set(await ask_all(rig)) == {FeatureState.PRESENT}


def as_feast_says(repo: FeatureRepo) -> list[int]:
    told = repo.store.get_online_features(["plane:seats"], [{"tailnum": f"N{i}"} for i in range(PLANES)])
    return list(told.to_dict()["seats"])


async def test_over_tls_with_a_client_certificate_and_a_user(tmp_path: Path) -> None:
    with tls_server(tmp_path) as (server, settings):
        admin: Any = redis.Redis(
            host=server.host,
            port=server.port,
            ssl=True,
            ssl_ca_certs=str(tmp_path / "ca.crt"),
            ssl_certfile=str(tmp_path / "client.crt"),
            ssl_keyfile=str(tmp_path / "client.key"),
        )
        admin.execute_command("ACL", "SETUSER", "serving", "on", ">secret", "~*", "+@all")
        admin.execute_command("ACL", "SETUSER", "default", "off")
        string = f"{server.address},{settings},username=serving,password=secret"
        repo = make_repo(tmp_path / "repo", online_store={"type": "redis", "connection_string": string})
        write_planes(repo)
        assert as_feast_says(repo) == [seats_of(i) for i in range(PLANES)]
        # Handshakes are long on a busy machine: a deadline may be shorter than they are.
        async with running(repo.path, contract_for(repo), tmp_path, hydration=QUICK) as rig:
            await until(lambda: all_are_present(rig))
            assert not rig.predictor.degraded
        admin.close()


async def test_behind_sentinel_the_new_master_is_read_after_the_old_one_was_killed(tmp_path: Path) -> None:
    with sentinel(tmp_path) as store:
        repo = make_repo(tmp_path / "repo", online_store=store.online_store)
        write_planes(repo)
        assert as_feast_says(repo) == [seats_of(i) for i in range(PLANES)]
        async with running(repo.path, contract_for(repo), tmp_path, hydration=QUICK) as rig:
            await until(lambda: all_are_present(rig))
            store.wait_for_replica()
            store.master.kill()
            assert FeatureState.STORE_ERROR in await ask_all(rig)
            await until(lambda: all_are_present(rig), timeout_s=60)
            assert store.master_port() == store.replica.port
            assert not rig.predictor.degraded


async def test_behind_sentinel_a_sentinel_that_hangs_does_not_hide_the_others(tmp_path: Path) -> None:
    with sentinel(tmp_path, sentinels=3) as store:
        repo = make_repo(tmp_path / "repo", online_store=store.online_store)
        write_planes(repo)
        store.freeze_sentinel(0)
        store.freeze_sentinel(1)
        async with running(repo.path, contract_for(repo), tmp_path, hydration=Hydration(deadline_s=0.05)) as rig:
            await until(lambda: all_are_present(rig))


async def test_a_slot_of_a_cluster_that_moves_is_followed_without_an_error(tmp_path: Path) -> None:
    with cluster(tmp_path) as store:
        repo = make_repo(tmp_path / "repo", online_store=store.online_store)
        write_planes(repo)
        assert all(store.keys(node) for node in store.nodes)
        assert as_feast_says(repo) == [seats_of(i) for i in range(PLANES)]
        async with running(repo.path, contract_for(repo), tmp_path, hydration=Hydration(deadline_s=5)) as rig:
            assert await all_are_present(rig)
            start, end, _ = store.nodes
            key = store.keys(start)[0]
            store.begin_move(key_slot(key), start, end)
            assert await all_are_present(rig)
            store.move_key(key, start, end)
            assert await all_are_present(rig)  # its node says ASK
            store.end_move(key_slot(key), start, end)
            assert await all_are_present(rig)  # and now MOVED
            assert rig.count("fairlead_store_reads_total", outcome="error") == 0


async def test_a_node_of_a_cluster_that_hangs_fails_alone(tmp_path: Path) -> None:
    with cluster(tmp_path) as store:
        repo = make_repo(tmp_path / "repo", online_store=store.online_store)
        write_planes(repo)
        async with running(repo.path, contract_for(repo), tmp_path, hydration=QUICK) as rig:
            await until(lambda: all_are_present(rig))
            sick = store.nodes[0]
            theirs = _planes_of(store, 0)
            sick.freeze()

            async def others_are_present() -> bool:
                states = await ask_all(rig)
                assert {states[i] for i in theirs} == {FeatureState.STORE_ERROR}
                return all(state is FeatureState.PRESENT for i, state in enumerate(states) if i not in theirs)

            await until(others_are_present)
            assert not rig.predictor.degraded  # the store is there; those answers are marked themselves
            sick.thaw()
            await until(lambda: all_are_present(rig))


def _planes_of(store: Cluster, node: int) -> set[int]:
    keys = store.keys(store.nodes[node])
    return {i for i in range(PLANES) for key in keys if key.endswith(f"N{i}small".encode())}


@pytest.mark.parametrize("which", ["killed", "moved away from"])
async def test_a_node_of_a_cluster_is_used_again(tmp_path: Path, which: str) -> None:
    with cluster(tmp_path) as store:
        repo = make_repo(tmp_path / "repo", online_store=store.online_store)
        write_planes(repo)
        async with running(repo.path, contract_for(repo), tmp_path, hydration=QUICK) as rig:
            await until(lambda: all_are_present(rig))
            start, end, _ = store.nodes
            if which == "killed":
                start.kill()
                assert FeatureState.STORE_ERROR in await ask_all(rig)
                start.start()
                await until(lambda: _none_fails(rig))
                await asyncio.to_thread(write_planes, make_repo(tmp_path / "again", online_store=store.online_store))
            else:
                key = store.keys(start)[0]
                store.move(key, start, end)
                assert await all_are_present(rig)
                store.move(key, end, start)
            await until(lambda: all_are_present(rig))


async def test_a_replica_that_takes_over_in_a_cluster_is_read(tmp_path: Path) -> None:
    with cluster(tmp_path, replica=True) as store:
        repo = make_repo(tmp_path / "repo", online_store=store.online_store)
        write_planes(repo)
        async with running(repo.path, contract_for(repo), tmp_path, hydration=QUICK) as rig:
            await until(lambda: all_are_present(rig))
            theirs = _planes_of(store, 0)
            assert theirs
            store.nodes[0].kill()
            await until(lambda: all_are_present(rig), timeout_s=60)


async def _none_fails(rig: Rig) -> bool:
    return FeatureState.STORE_ERROR not in await ask_all(rig)
