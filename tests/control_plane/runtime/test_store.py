"""The store and its watches: in step with the API whatever happens to the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_operator.platforms.kubernetes.client import KubeClient
from fairlead_operator.platforms.kubernetes.kinds import (
    CHILDREN,
    CONFIG_MAP,
    DEPLOYMENT,
    FEATURE_STORE,
    INFERENCE_SERVICE,
    MODEL_DEPLOYMENT,
    PARENT,
    POD,
    SECRET,
    Kind,
    Watched,
    fields,
    nothing,
)
from fairlead_operator.platforms.kubernetes.parents import Parents
from fairlead_operator.platforms.kubernetes.reflector import Reflector, Restart, WatchTerms
from fairlead_operator.platforms.kubernetes.store import ObjectStore
from fairlead_operator.runtime.keys import ObjectKey
from support.kube import CutLine, End, FallSilent, KubeApiServer, Refuse, WatchError, calls, feast_kinds, kserve_kinds
from support.operators import config_map, dice, labels_of, model_deployment
from support.waiting import until

DELAY, SCORES = ObjectKey("flights", "delay"), ObjectKey("flights", "scores")
QUICK = WatchTerms(
    timeout_s=300, silence_s=0.4, first_pause_s=0.01, longest_pause_s=0.1, first_probe_s=0.02, longest_probe_s=0.1
)
Told = list[tuple[Kind, ObjectKey, ObjectKey | None]]


FEAST = FEATURE_STORE
KINDS = {
    one.kind: one
    for one in (
        PARENT,
        *CHILDREN,
        Watched(SECRET, nothing),
        Watched(FEAST, fields("status"), labels={}, optional=True),
    )
}


class Watching:
    """A store of one kind that is being filled."""

    def __init__(self, client: KubeClient, kind: Kind, namespaces: tuple[str, ...] = ()) -> None:
        self.told: Told = []
        self.appeared: list[Kind] = []
        self.restarts: list[Restart] = []
        self.kind = kind
        self.store = ObjectStore(
            [KINDS[kind]], lambda *change: self.told.append(change), lambda _: namespaces or (None,)
        )
        self.reflectors = [
            Reflector(
                client,
                self.store,
                KINDS[kind],
                now=asyncio.get_running_loop().time,
                randomness=dice(),
                namespace=namespace,
                terms=QUICK,
                appeared=self.appeared.append,
                observe=lambda _, restart: self.restarts.append(restart),
            )
            for namespace in self.store.scopes(kind)
        ]

    @property
    def names(self) -> list[str]:
        return sorted(key.name for key in self.store.keys(self.kind))


@asynccontextmanager
async def watching(client: KubeClient, kind: Kind, namespaces: tuple[str, ...] = ()) -> AsyncIterator[Watching]:
    made = Watching(client, kind, namespaces)
    tasks = [asyncio.create_task(reflector.run()) for reflector in made.reflectors]
    try:
        yield made
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def owned_map(name: str, owner: ObjectKey = DELAY, **data: str) -> dict[str, Any]:
    return config_map(name, owner=owner, **data)


async def test_what_is_there_and_what_comes_later_is_known_by_its_owner(
    server: KubeApiServer, client: KubeClient
) -> None:
    server.create(owned_map("scores", auc="1"))
    server.create(config_map("foreign"))
    async with watching(client, CONFIG_MAP) as seen:
        await until(lambda: seen.store.is_filled(CONFIG_MAP))
        assert seen.names == ["scores"]
        server.create(owned_map("weights"))
        server.patch("ConfigMap", "flights", "scores", {"data": {"auc": "2"}})
        await until(lambda: len(seen.told) == 3)
        found = seen.store.owned(CONFIG_MAP, DELAY)
        assert [one["metadata"]["name"] for one in found] == ["scores", "weights"]
        assert found[0]["data"] == {"auc": "2"}
        assert (
            found[0]["metadata"]["resourceVersion"]
            == (await client.get(CONFIG_MAP, SCORES))["metadata"]["resourceVersion"]
        )
        server.delete("ConfigMap", "flights", "scores")
        await until(lambda: seen.names == ["weights"])
        assert {owner for _, _, owner in seen.told} == {DELAY}


@pytest.mark.parametrize("fault", [WatchError(410), CutLine(), End(), FallSilent(), WatchError(500, "InternalError")])
async def test_deletions_in_a_gap_of_the_watch_are_noticed(
    server: KubeApiServer, client: KubeClient, fault: WatchError | CutLine | End | FallSilent
) -> None:
    for name in "abc":
        server.create(owned_map(name))
    async with watching(client, CONFIG_MAP) as seen:
        await until(lambda: bool(server.open_watches))
        server.faults.inject(Refuse(503), calls("watch"), times=2)
        server.interrupt_watches(fault)
        if isinstance(fault, FallSilent):
            await asyncio.sleep(0.05)
        server.delete("ConfigMap", "flights", "b")
        server.create(owned_map("d"))
        seen.told.clear()
        await until(lambda: seen.names == ["a", "c", "d"])
        assert (CONFIG_MAP, ObjectKey("flights", "b"), DELAY) in seen.told
        assert seen.restarts


async def test_a_version_that_the_server_has_forgotten_is_listed_anew(
    server: KubeApiServer, client: KubeClient
) -> None:
    for name in "abc":
        server.create(owned_map(name))
    async with watching(client, CONFIG_MAP) as seen:
        await until(lambda: bool(server.open_watches))
        server.faults.inject(Refuse(503), calls("watch"), times=3)
        server.interrupt_watches(CutLine())
        await until(lambda: not server.open_watches)
        server.delete("ConfigMap", "flights", "a")
        server.store.compact()
        await until(lambda: seen.names == ["b", "c"])
        assert Restart.EXPIRED in seen.restarts


async def test_a_silent_watch_is_opened_anew_and_told_apart_from_a_quiet_one(
    server: KubeApiServer, client: KubeClient
) -> None:
    async with watching(client, CONFIG_MAP) as seen:
        await until(lambda: bool(server.open_watches))
        await asyncio.sleep(1.0)
        assert seen.restarts == []  # bookmarks come
        assert seen.reflectors[0].silent_for_s < 0.3
        server.interrupt_watches(FallSilent())
        server.create(owned_map("late"))
        await until(lambda: seen.names == ["late"], timeout_s=2)
        assert seen.restarts == [Restart.BROKEN]
        assert [record.call.verb for record in server.requests].count("list") == 1


async def test_a_kind_that_is_installed_later_is_watched_by_itself(server: KubeApiServer, client: KubeClient) -> None:
    async with watching(client, FEAST) as seen:
        await until(lambda: seen.store.is_missing(FEAST))
        assert seen.store.is_ready
        assert not seen.store.is_filled(FEAST)
        server.register(*feast_kinds())
        store = {"apiVersion": FEAST.api_version, "kind": "FeatureStore", "spec": {"feastProject": "flights"}}
        server.create({**store, "metadata": {"name": "feast", "namespace": "flights"}})
        await until(lambda: seen.names == ["feast"])
        assert seen.appeared == [FEAST]
        assert not seen.store.is_missing(FEAST)


async def test_a_kind_that_is_uninstalled_is_missing_and_its_objects_have_gone(
    client: KubeClient, server: KubeApiServer
) -> None:
    service = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "spec": {"predictor": {}}}
    server.create({**service, "metadata": {"name": "delay-a", "namespace": "flights", "labels": labels_of(DELAY)}})
    async with watching(client, INFERENCE_SERVICE) as seen:
        await until(lambda: seen.names == ["delay-a"])
        server.unregister("inferenceservices.serving.kserve.io")
        await until(lambda: seen.store.is_missing(INFERENCE_SERVICE))
        assert seen.names == []
        assert seen.told[-1] == (INFERENCE_SERVICE, ObjectKey("flights", "delay-a"), DELAY)
        server.register(*(kind for kind in kserve_kinds() if kind.plural == "inferenceservices"))
        await until(lambda: seen.names == ["delay-a"])


async def test_namespaces_are_listed_each_for_itself(server: KubeApiServer, client: KubeClient) -> None:
    server.create(owned_map("here"))
    server.create(config_map("there", owner=DELAY, namespace="taxis"))
    server.create(config_map("elsewhere", owner=DELAY, namespace="default"))
    async with watching(client, CONFIG_MAP, ("flights", "taxis")) as seen:
        await until(lambda: seen.store.is_filled(CONFIG_MAP))
        assert seen.names == ["here", "there"]
        server.interrupt_watches(WatchError(410))
        server.delete("ConfigMap", "taxis", "there")
        await until(lambda: seen.names == ["here"])


async def test_a_watch_that_is_forbidden_goes_on_trying(server: KubeApiServer, client: KubeClient) -> None:
    server.faults.inject(Refuse(403, "Forbidden"), calls("list", "configmaps"), times=3)
    async with watching(client, CONFIG_MAP) as seen:
        await until(lambda: seen.store.is_filled(CONFIG_MAP))
        assert seen.restarts == [Restart.REFUSED] * 3


def store_of(kind: Kind) -> tuple[ObjectStore, Told]:
    told: Told = []
    return ObjectStore([KINDS[kind]], lambda *change: told.append(change)), told


def made(value: dict[str, Any], version: int = 1, **metadata: Any) -> dict[str, Any]:
    return {**value, "metadata": {**value["metadata"], "resourceVersion": str(version), **metadata}}


def test_a_change_of_what_is_not_kept_is_told_to_nobody() -> None:
    store, told = store_of(SECRET)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "flights", "labels": {}}}
    store.put(SECRET, made({**secret, "data": {"key": "aGVsbG8="}}))
    store.put(SECRET, made({**secret, "data": {"key": "d29ybGQ="}}, 2, managedFields=[{"manager": "x"}]))
    assert len(told) == 1
    kept = store.get(SECRET, ObjectKey("flights", "s"))
    assert kept is not None
    assert kept["metadata"]["resourceVersion"] == "2"
    assert "data" not in kept
    assert "managedFields" not in kept["metadata"]


def test_what_is_read_can_be_changed_without_harm() -> None:
    store, _ = store_of(CONFIG_MAP)
    store.put(CONFIG_MAP, made(owned_map("scores", auc="1")))
    read = store.get(CONFIG_MAP, SCORES)
    assert read is not None
    read["data"]["auc"] = "9"
    again = store.get(CONFIG_MAP, SCORES)
    assert again is not None
    assert again["data"] == {"auc": "1"}


def test_an_object_that_changes_hands_concerns_both() -> None:
    store, told = store_of(CONFIG_MAP)
    other = ObjectKey("flights", "other")
    store.put(CONFIG_MAP, made(owned_map("scores")))
    store.put(CONFIG_MAP, made(owned_map("scores", owner=other), 2))
    assert [owner for _, _, owner in told] == [DELAY, DELAY, other]
    assert store.owned(CONFIG_MAP, DELAY) == ()
    assert store.owners(CONFIG_MAP) == {other}


def test_of_pods_and_deployments_only_what_readiness_is_read_from_is_kept() -> None:
    store, _ = store_of(POD)
    waiting = {"name": "kserve-container", "ready": False, "restartCount": 3, "imageID": "x", "state": {"waiting": {}}}
    pod = {
        "metadata": {"name": "p", "namespace": "flights", "labels": labels_of(DELAY)},
        "spec": {"containers": [{"name": "kserve-container", "env": [{"name": "KEY", "value": "secret"}]}]},
        "status": {"phase": "Pending", "containerStatuses": [waiting], "qosClass": "Burstable"},
    }
    store.put(POD, made(pod))
    kept = store.owned(POD, DELAY)[0]
    assert "spec" not in kept
    expected = {name: waiting[name] for name in ("name", "ready", "restartCount", "state")}
    assert kept["status"] == {"phase": "Pending", "containerStatuses": [expected]}
    trimmed = KINDS[DEPLOYMENT].trim(
        {"spec": {"replicas": 2, "template": {"metadata": {"annotations": {"a": "b"}}, "spec": {}}}, "status": {"x": 1}}
    )
    assert trimmed == {
        "spec": {"replicas": 2, "template": {"metadata": {"annotations": {"a": "b"}}}},
        "status": {"x": 1},
    }


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from([None, DELAY, SCORES]), st.sampled_from(["put", "drop"])),
        max_size=40,
    )
)
def test_the_index_by_owner_always_agrees_with_the_objects(steps: list[tuple[str, ObjectKey | None, str]]) -> None:
    store, _ = store_of(CONFIG_MAP)
    model: dict[ObjectKey, ObjectKey | None] = {}
    for version, (name, owner, step) in enumerate(steps):
        key = ObjectKey("flights", name)
        if step == "put":
            store.put(CONFIG_MAP, made(config_map(name, owner=owner), version))
            model[key] = owner
        else:
            store.remove(CONFIG_MAP, key)
            model.pop(key, None)
    assert set(store.keys(CONFIG_MAP)) == set(model)
    for owner in (DELAY, SCORES):
        names = [one["metadata"]["name"] for one in store.owned(CONFIG_MAP, owner)]
        assert names == sorted(key.name for key, its in model.items() if its == owner)
    assert store.owners(CONFIG_MAP) == {owner for owner in model.values() if owner}


async def test_a_relist_of_parents_finds_what_the_watch_never_told(server: KubeApiServer, client: KubeClient) -> None:
    told: Told = []
    store = ObjectStore([PARENT], lambda *change: told.append(change))
    parents = Parents(client, store, asyncio.get_running_loop().time)
    for name in ("a", "b"):
        server.create(model_deployment(name))
    assert {key.name for key in await parents.relist()} == {"a", "b"}
    assert store.is_filled(MODEL_DEPLOYMENT)
    server.delete("ModelDeployment", "flights", "a")
    server.create(model_deployment("c"))
    assert {key.name for key in await parents.relist()} == {"a", "b", "c"}
    assert sorted(key.name for key in store.keys(MODEL_DEPLOYMENT)) == ["b", "c"]
    assert parents.repaired == 1


async def test_what_the_watch_tells_during_a_relist_is_newer_than_the_list(
    server: KubeApiServer, client: KubeClient
) -> None:
    store = ObjectStore([PARENT], lambda *_: None)
    parents = Parents(client, store, asyncio.get_running_loop().time)
    kept = server.create(model_deployment("kept"))
    doomed = server.create(model_deployment("doomed"))
    await parents.relist()

    class Meddled:
        """Between the server's answer and its being read, the watch tells news."""

        async def list(self, *given: Any, **options: Any) -> Any:
            listed = await client.list(*given, **options)
            newer = server.patch("ModelDeployment", "flights", "kept", {"metadata": {"labels": {"new": "er"}}})
            parents.heard(newer, deleted=False)
            parents.heard(doomed, deleted=True)
            parents.heard(server.create(model_deployment("fresh")), deleted=False)
            return listed

    parents._api = Meddled()  # type: ignore[assignment]  # only its list is used
    await parents.relist()
    assert sorted(key.name for key in store.keys(MODEL_DEPLOYMENT)) == ["fresh", "kept"]
    parents.heard(kept, deleted=False)  # an event that comes late
    found = store.get(MODEL_DEPLOYMENT, ObjectKey("flights", "kept"))
    assert found is not None
    assert found["metadata"]["labels"] == {"new": "er"}
