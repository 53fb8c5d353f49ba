"""Everything that can go wrong between a client and the server can be made to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import pytest

from support.kube import (
    CutLine,
    Delay,
    Drop,
    End,
    FallSilent,
    Hang,
    KubeApiServer,
    LoseAnswer,
    Record,
    Refuse,
    WatchError,
    calls,
    feast_kinds,
)
from support.kube.contract import Api, Events, config_map
from support.kube.store import Object
from support.waiting import until


@pytest.fixture
async def server() -> AsyncIterator[KubeApiServer]:
    async with KubeApiServer(bookmark_interval_s=0.05) as running:
        yield running


async def said_within(events: Events, timeout_s: float) -> AsyncIterator[Object]:
    with suppress(TimeoutError):
        while True:
            yield await events.next(timeout_s)


@pytest.fixture
async def client(server: KubeApiServer) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession(server.url) as session:
        yield Api(session, "default")


async def test_a_call_can_be_refused_after_some_went_well(server: KubeApiServer, client: Api) -> None:
    server.faults.inject(Refuse(503, "ServiceUnavailable"), calls("write", "configmaps"), skip=1, times=2)
    codes = [(await client.create(config_map(name))).code for name in ("a", "b", "c", "d")]
    assert codes == [201, 503, 503, 201]
    assert [stored["metadata"]["name"] for stored in server.objects("cm")] == ["a", "d"]


async def test_a_dropped_call_is_not_done_and_one_with_a_lost_answer_is(server: KubeApiServer, client: Api) -> None:
    for fault in (Drop(), LoseAnswer()):
        server.faults.inject(fault, calls("create"))
        with pytest.raises(aiohttp.ClientError):
            await client.create(config_map(type(fault).__name__.lower()))
    assert [stored["metadata"]["name"] for stored in server.objects("cm")] == ["loseanswer"]
    assert [(record.code, record.changed) for record in server.writes] == [(0, False), (0, True)]


async def test_a_call_can_take_long_or_for_ever(server: KubeApiServer, client: Api) -> None:
    server.faults.inject(Delay(0.05), calls("get"))
    server.faults.inject(Hang(), calls("list"))
    assert (await client.get(config_map("a"))).code == 404
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.list(config_map(""))


async def test_a_token_stops_being_valid(server: KubeApiServer, client: Api) -> None:
    server.token = "second"  # noqa: S105  a word, not a secret
    refused = await client.list(config_map(""))
    assert (refused.code, refused.body["reason"]) == (401, "Unauthorized")
    client.session.headers["Authorization"] = "Bearer second"
    assert (await client.list(config_map(""))).code == 200


@pytest.mark.parametrize(("fault", "last"), [(WatchError(), 410), (WatchError(500, "InternalError"), 500)])
async def test_an_open_watch_can_be_told_an_error(
    server: KubeApiServer, client: Api, fault: WatchError, last: int
) -> None:
    async with client.watch(config_map("")) as events:
        await until(lambda: bool(server.open_watches))
        assert server.interrupt_watches(fault, "configmaps") == 1
        event = await events.next()
        assert (event["type"], event["object"]["code"]) == ("ERROR", last)
        with pytest.raises(EOFError):
            await events.next()


async def test_an_open_watch_can_end_or_be_cut_within_a_line(server: KubeApiServer, client: Api) -> None:
    async with client.watch(config_map("")) as events:
        await until(lambda: bool(server.open_watches))
        server.interrupt_watches(End())
        assert await events.rest() == []
    await until(lambda: not server.open_watches)
    async with client.watch(config_map("")) as events:
        await until(lambda: bool(server.open_watches))
        server.interrupt_watches(CutLine())
        with pytest.raises((aiohttp.ClientError, ValueError)):
            await events.next()


async def test_a_silent_watch_says_nothing_more_and_stays_open(server: KubeApiServer, client: Api) -> None:
    async with client.watch(config_map(""), allowWatchBookmarks="true") as events:
        assert (await events.next())["type"] == "BOOKMARK"
        server.interrupt_watches(FallSilent())
        await client.create(config_map("a"))
        said = [event async for event in said_within(events, 0.2)]
        assert all(event["type"] == "BOOKMARK" for event in said)
        assert server.open_watches == ["configmaps"]


async def test_a_watch_can_be_disturbed_from_its_start(server: KubeApiServer, client: Api) -> None:
    server.faults.inject(WatchError(), calls("watch"))
    async with client.watch(config_map("")) as events:
        assert (await events.next())["type"] == "ERROR"


async def test_forgotten_history_expires_an_old_revision(server: KubeApiServer, client: Api) -> None:
    first = await client.create(config_map("a"))
    page = await client.list(config_map(""), limit="1")
    server.store.compact()
    async with client.watch(config_map(""), resourceVersion=first.revision) as events:
        assert (await events.next())["object"]["code"] == 410
    await client.create(config_map("b"))
    page = await client.list(config_map(""), limit="1")
    server.store.compact()
    assert (await client.list(config_map(""), **{"continue": page.metadata["continue"]})).code == 410


async def test_the_world_can_be_stopped_after_a_write(server: KubeApiServer, client: Api) -> None:
    async def write_three() -> None:
        for name in ("a", "b", "c"):
            await client.create(config_map(name))

    halt = server.halt_after(2)
    work = asyncio.create_task(write_three())
    await halt.reached()
    assert len(server.objects("cm")) == 2
    work.cancel()
    halt.resume()
    assert [item["metadata"]["name"] for item in (await client.list(config_map(""))).body["items"]] == ["a", "b"]


async def test_an_invariant_that_breaks_at_a_write_fails_the_test() -> None:
    watched = KubeApiServer()

    async def never_two(_: Record) -> None:
        await asyncio.sleep(0)
        assert len(watched.objects("cm")) < 2, "there are two"

    async def write_two() -> None:
        async with watched, aiohttp.ClientSession(watched.url) as session:
            watched.after_write.append(never_two)
            for name in ("a", "b"):
                await Api(session, "default").create(config_map(name))

    with pytest.raises(AssertionError, match="there are two"):
        await write_two()


async def test_kinds_come_and_go(server: KubeApiServer, client: Api) -> None:
    stores = "/apis/feast.dev/v1/namespaces/default/featurestores"
    assert (await client.call("GET", stores)).body == {"text": "404 page not found\n"}
    server.register(*feast_kinds())
    assert (await client.call("GET", stores)).code == 200
    async with client.session.get(stores, params={"watch": "1"}) as response:
        server.unregister("featurestores.feast.dev")
        assert await response.content.read() == b""
    assert (await client.call("GET", stores)).code == 404


async def test_the_log_knows_before_and_after(server: KubeApiServer, client: Api) -> None:
    await client.apply(config_map("a", x="1"))
    await client.apply(config_map("a", x="1"))
    await client.apply(config_map("a", x="2"))
    assert [record.changed for record in server.writes] == [True, False, True]
    last = server.changes[-1]
    assert last.object_before
    assert last.object_after
    assert (last.object_before["data"], last.object_after["data"]) == ({"x": "1"}, {"x": "2"})
    assert (last.call.manager, last.call.user_agent) == ("fairlead", "contract/1.0")
    assert len(last.call.body_digest) == 64
