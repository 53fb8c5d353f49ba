"""Redis is read directly where Feast's own store is configured, in one round trip, and otherwise through Feast."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float64, Int64

from fairlead.policy import FeatureState, Hydration
from fairlead_server.hydrate.found import Found
from fairlead_server.hydrate.plan import compile_plan
from fairlead_server.hydrate.redis import open_back_end
from fairlead_server.hydrate.source import source_of
from support import blocking_redis
from support.models import contract_of
from support.predictors import NOON, contract_for, running, seen
from support.servers import RedisServer, redis_server
from support.store import FeatureRepo, make_repo
from support.waiting import until


@asynccontextmanager
async def monitored(server: RedisServer) -> AsyncIterator[list[str]]:
    """Collect the reads that a server is asked for."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"MONITOR\r\n")
    await reader.readline()
    lines: list[str] = []

    async def collect() -> None:
        while line := await reader.readline():
            lines.append(line.decode(errors="replace"))

    task = asyncio.create_task(collect())
    try:
        yield lines
    finally:
        task.cancel()
        writer.close()


def _write_planes(repo: FeatureRepo) -> None:
    for i in range(8):
        repo.write("plane", {"tailnum": f"N{i}"}, {"seats": i, "maker": "BOEING", "jet": True}, NOON)


def _reads(lines: list[str]) -> list[str]:
    return [line for line in lines if '"HMGET"' in line]


async def test_all_requests_of_a_turn_are_one_pipeline_with_a_command_per_entity(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        repo = make_repo(tmp_path / "repo", online_store=server.online_store)
        _write_planes(repo)
        async with running(repo.path, contract_for(repo), tmp_path) as rig:
            await rig.ask({})
            async with monitored(server) as lines:
                answers = await asyncio.gather(*(rig.ask({"tailnum": f"N{i % 8}"}) for i in range(32)))
                await until(lambda: len(_reads(lines)) >= 10)
        assert [seen(answer, "plane__seats") for answer in answers] == [i % 8 for i in range(32)]
        # One hash of the plane for both its views, eight of them; one of the origin and one of the pair.
        assert len(_reads(lines)) == 10
        assert len({line.split("]")[0].rsplit(" ", 1)[1] for line in _reads(lines)}) == 1


@pytest.mark.parametrize(("kind", "reader"), [({}, "redis"), ({"type": blocking_redis.TYPE}, "generic")])
async def test_it_is_said_how_a_store_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: dict[str, str], reader: str
) -> None:
    with redis_server(tmp_path) as server:
        repo = make_repo(tmp_path / "repo", online_store=server.online_store | kind)
        with caplog.at_level("INFO"):
            async with running(repo.path, contract_for(repo), tmp_path) as rig:
                assert rig.count("fairlead_feature_reader", view="plane", reader=reader) == 1
    assert ("features are read through feast" in caplog.text) is (reader == "generic")


async def test_a_user_who_may_only_read_is_enough_and_a_wrong_password_is_a_store_error(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        repo = make_repo(tmp_path / "repo", online_store=server.online_store)
        _write_planes(repo)
        admin: Any = redis.Redis(port=server.port)
        admin.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+hmget", "+client")
        as_reader = f"{server.address},username=reader,password=secret"
        reading = make_repo(
            tmp_path / "reading", online_store={"type": "redis", "connection_string": as_reader}, apply=False
        )
        (repo.path / "registry.db").rename(reading.path / "registry.db")
        contract = contract_for(reading)
        async with running(reading.path, contract, tmp_path) as rig:
            assert seen(await rig.ask({"tailnum": "N3"}), "plane__seats") == 3
            admin.execute_command("ACL", "SETUSER", "reader", "resetpass", ">another")
            admin.client_kill_filter(_type="normal", skipme=True)
            assert await rig.state("plane__seats", tailnum="N3") is FeatureState.STORE_ERROR
            await until(lambda: rig.predictor.degraded)
            admin.execute_command("ACL", "SETUSER", "reader", ">secret")
            await until(lambda: _is_present(rig))
        admin.close()


async def _is_present(rig: Any) -> bool:
    return await rig.state("plane__seats", tailnum="N3") is FeatureState.PRESENT


async def test_a_key_that_is_no_hash_is_a_store_error_of_its_row_alone(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        repo = make_repo(tmp_path / "repo", online_store=server.online_store)
        _write_planes(repo)
        admin: Any = redis.Redis(port=server.port)
        (key,) = [key for key in admin.scan_iter() if b"N5" in key]
        admin.delete(key)
        admin.set(key, "no hash")
        async with running(repo.path, contract_for(repo), tmp_path) as rig:
            five, three = await asyncio.gather(rig.ask({"tailnum": "N5"}), rig.ask({"tailnum": "N3"}))
        admin.close()
    assert five.states is not None
    assert five.states["plane__seats"] == (FeatureState.STORE_ERROR,)
    assert five.degraded
    assert seen(three, "plane__seats") == 3
    assert not three.degraded


WIDE = 60


async def _read_wide(repo: FeatureRepo, login: str = "") -> tuple[Found, list[str]]:
    """Read users 1 and 2 of a wide view; return what was found, and the commands that were sent."""
    server = str(repo.store.config.online_store.connection_string)
    contract = contract_of(repo.describe("wide"), echo=False)
    plan = compile_plan(contract, Hydration())
    tables = source_of(repo.store, contract).tables
    repo.store.config.online_store.connection_string = server + login
    back_end = open_back_end(repo.store, plan.views, tables, 10)
    host, _, port = server.partition(":")
    try:
        await back_end.connect()
        async with monitored(RedisServer(repo.path, int(port), host=host)) as lines:
            found = await back_end.read({("user",): [(1,), (2,), (3,)]})
            await until(lambda: len([line for line in lines if '"H' in line]) >= 3)
    finally:
        await back_end.close()
        repo.store.config.online_store.connection_string = server
    return found, [line.split('"')[1] for line in lines if '"H' in line]


@pytest.mark.parametrize(
    ("others", "login", "command"),
    [
        (0, "", "HGETALL"),
        (80, "", "HMGET"),  # most of the hash is not wanted
        (0, ",username=reader,password=secret", "HMGET"),  # who may not read it whole
    ],
)
async def test_a_wide_hash_is_read_whole_where_that_is_faster_and_allowed(
    tmp_path: Path, others: int, login: str, command: str
) -> None:
    with redis_server(tmp_path) as server:
        repo = make_repo(tmp_path / "repo", online_store=server.online_store, apply=False)
        user = Entity(name="user", join_keys=["user"], value_type=ValueType.INT64)
        wide, beside = (
            FeatureView(
                name=name,
                entities=[user],
                schema=[Field(name="user", dtype=Int64), *(Field(name=f"f{i}", dtype=Float64) for i in range(amount))],
                source=FileSource(name=f"{name}_source", path=str(tmp_path / "none.parquet"), timestamp_field="at"),
            )
            for name, amount in (("wide", WIDE), ("beside", others or 1))
        )
        repo.store.apply([user, wide, beside, FeatureService(name="wide", features=[wide])])
        for key, values in ((1, {f"f{i}": i + 0.5 for i in range(WIDE)}), (2, {"f0": 7.0, "f1": None})):
            row = {name: Value() if x is None else Value(double_val=x) for name, x in values.items()}
            entity = EntityKey(join_keys=["user"], entity_values=[Value(int64_val=key)])
            repo.store.provider.online_write_batch(repo.store.config, wide, [(entity, row, NOON, NOON)], None)
        admin: Any = redis.Redis(port=server.port)
        admin.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+hmget", "+client", "+monitor")
        admin.close()
        found, sent = await _read_wide(repo, login)
    read = found["wide"]
    assert read is not None
    assert set(sent) == {command}
    assert [column[0] for column in read.columns] == [i + 0.5 for i in range(WIDE)]
    assert read.columns[0][1] == 7.0
    assert {odd.state for odd in read.odd if odd.feature > 1} == {FeatureState.NEVER_WRITTEN}
    assert [odd.state for odd in read.odd if odd.feature == 1] == [FeatureState.NULL]
    assert read.event_us[2] == 0
