"""Watches deliver the same in memory as from a real kube-apiserver."""

from __future__ import annotations

import pytest

from support.kube.contract import Api, Events, named, probe


async def seen(events: Events) -> tuple[str, str]:
    event = await events.next()
    return event["type"], event["object"]["metadata"]["name"]


async def test_a_watch_from_a_revision_delivers_what_came_after(api: Api) -> None:
    await api.create(probe("before"))
    revision = (await api.list(probe(""))).revision
    made = await api.create(probe("a"))
    async with api.watch(probe(""), resourceVersion=revision) as events:
        first = await events.next()
        assert (first["type"], first["object"]) == ("ADDED", made.body)
        await api.merge(probe("a"), {"spec": {"mode": "Fast"}})
        assert await seen(events) == ("MODIFIED", "a")
        await api.delete(probe("a"))
        last = await events.next()
        assert last["type"] == "DELETED"
        assert last["object"]["spec"]["mode"] == "Fast"
        assert int(last["object"]["metadata"]["resourceVersion"]) > int(made.revision) + 1


async def test_a_watch_without_a_revision_begins_with_what_is_there(api: Api) -> None:
    await api.create(probe("a"))
    async with api.watch(probe("")) as events:
        assert await seen(events) == ("ADDED", "a")
        await api.create(probe("b"))
        assert await seen(events) == ("ADDED", "b")


async def test_a_write_that_changes_nothing_is_no_event(api: Api) -> None:
    made = await api.apply(probe("a", mode="Fast"))
    async with api.watch(probe(""), resourceVersion=made.revision) as events:
        await api.apply(probe("a", mode="Fast"))
        await api.create(probe("b"))
        assert await seen(events) == ("ADDED", "b")


async def test_what_leaves_a_selection_is_deleted_and_what_enters_is_added(api: Api) -> None:
    made = await api.create(named(probe("a"), labels={"on": "no"}))
    async with api.watch(probe(""), labelSelector="on=yes", resourceVersion=made.revision) as events:
        await api.merge(probe("a"), {"metadata": {"labels": {"on": "yes"}}})
        assert await seen(events) == ("ADDED", "a")
        await api.merge(probe("a"), {"metadata": {"labels": {"on": "no"}}})
        assert await seen(events) == ("DELETED", "a")


async def test_one_object_can_be_watched(api: Api) -> None:
    made = await api.create(probe("a"))
    await api.create(probe("b"))
    async with api.watch(probe(""), fieldSelector="metadata.name=b", resourceVersion=made.revision) as events:
        assert await seen(events) == ("ADDED", "b")


async def test_a_held_deletion_is_a_change_and_its_end_a_deletion(api: Api) -> None:
    held = named(probe("a"), finalizers=["contract.fairlead.dev/hold"])
    made = await api.create(held)
    async with api.watch(probe(""), resourceVersion=made.revision) as events:
        await api.delete(held)
        assert await seen(events) == ("MODIFIED", "a")
        await api.merge(held, {"metadata": {"finalizers": []}})
        assert await seen(events) == ("DELETED", "a")


async def test_a_watch_ends_when_its_time_is_over(api: Api) -> None:
    await api.create(probe("a"))
    async with api.watch(probe(""), timeoutSeconds="1") as events:
        assert [event["type"] for event in await events.rest()] == ["ADDED"]


async def test_the_time_of_a_watch_is_whole_seconds(api: Api) -> None:
    reply = await api.call("GET", api.path(probe("")), watch="true", timeoutSeconds="30.0")
    assert (reply.code, reply.body["reason"]) == (400, "BadRequest")
    assert reply.body["message"] == 'strconv.ParseInt: parsing "30.0": invalid syntax'


async def test_a_revision_that_is_forgotten_is_expired(api: Api) -> None:
    async with api.watch(probe(""), resourceVersion="1") as events:
        event = await events.next()
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
        with pytest.raises(EOFError):
            await events.next()


async def test_initial_events_end_with_a_marked_bookmark(api: Api) -> None:
    await api.create(probe("a"))
    query = {"sendInitialEvents": "true", "allowWatchBookmarks": "true", "resourceVersionMatch": "NotOlderThan"}
    async with api.watch(probe(""), **query) as events:
        assert await seen(events) == ("ADDED", "a")
        mark = await events.next()
        assert mark["type"] == "BOOKMARK"
        assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert int(mark["object"]["metadata"]["resourceVersion"]) > 0
