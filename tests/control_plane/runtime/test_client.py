"""The client against the API server in memory: what it asks, what it makes of answers, and what it tries again."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from fairlead_operator.platforms.kubernetes.api import Change, WatchEvent
from fairlead_operator.platforms.kubernetes.client import KubeClient, Patience
from fairlead_operator.platforms.kubernetes.connection import connect
from fairlead_operator.platforms.kubernetes.errors import (
    AlreadyExists,
    Expired,
    Forbidden,
    Invalid,
    KindMissing,
    KubeError,
    LeaseLost,
    NotFound,
    OwnedByOther,
    Stale,
    Unauthorized,
    Unavailable,
)
from fairlead_operator.platforms.kubernetes.kinds import (
    CONFIG_MAP,
    FEATURE_STORE,
    INFERENCE_SERVICE,
    MODEL_DEPLOYMENT,
    NAMESPACE,
)
from fairlead_operator.runtime.keys import ObjectKey
from support.kube import (
    CutLine,
    Drop,
    End,
    FallSilent,
    Hang,
    KubeApiServer,
    LoseAnswer,
    Refuse,
    WatchError,
    calls,
)
from support.operators import client_of, config_map, model_deployment

SCORES = ObjectKey("flights", "scores")


async def test_an_object_is_read_as_it_is(server: KubeApiServer, client: KubeClient) -> None:
    server.create(config_map("scores", auc="0.71"))
    found = await client.get(CONFIG_MAP, SCORES)
    assert found["data"] == {"auc": "0.71"}
    assert (await client.get(NAMESPACE, ObjectKey("", "flights")))["metadata"]["name"] == "flights"


async def test_a_missing_object_and_a_missing_kind_are_told_apart(client: KubeClient) -> None:
    with pytest.raises(NotFound):
        await client.get(CONFIG_MAP, SCORES)
    for call in (client.get(FEATURE_STORE, SCORES), client.list(FEATURE_STORE)):
        with pytest.raises(KindMissing):
            await call
    assert not await client.serves(FEATURE_STORE)
    assert await client.serves(INFERENCE_SERVICE)
    assert await client.serves(CONFIG_MAP)


async def test_a_list_comes_in_pages_of_one_version(server: KubeApiServer, tmp_path: Path) -> None:
    owner = ObjectKey("flights", "delay")
    for number in range(5):
        server.create(config_map(f"c{number}", owner=owner if number % 2 else None))
    async with client_of(server, tmp_path, patience=Patience(page_size=2)) as client:
        pages = [page async for page in client.pages(CONFIG_MAP, namespace="flights")]
        assert [len(page.items) for page in pages] == [2, 2, 1]
        assert len({page.resource_version for page in pages}) == 1
        ours = await client.list(CONFIG_MAP, labels={"app.kubernetes.io/managed-by": "fairlead"})
        assert [item["metadata"]["name"] for item in ours] == ["c1", "c3"]


async def test_a_list_that_expires_on_the_way_starts_anew(server: KubeApiServer, tmp_path: Path) -> None:
    for number in range(5):
        server.create(config_map(f"c{number}"))
    server.faults.inject(Refuse(410, "Expired"), calls("list", "configmaps"), skip=1)
    async with client_of(server, tmp_path, patience=Patience(page_size=2)) as client:
        assert len(await client.list(CONFIG_MAP, namespace="flights")) == 5


async def test_apply_makes_an_object_once(server: KubeApiServer, client: KubeClient) -> None:
    first = await client.apply(CONFIG_MAP, config_map("scores", auc="0.71"))
    again = await client.apply(CONFIG_MAP, config_map("scores", auc="0.71"))
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert {record.call.manager for record in server.writes} == {"fairlead"}
    checked = await client.apply(CONFIG_MAP, config_map("scores", auc="0.9"), dry_run=True)
    assert checked["data"] == {"auc": "0.9"}
    assert (await client.get(CONFIG_MAP, SCORES))["data"] == {"auc": "0.71"}


async def test_apply_from_an_old_version_is_stale(client: KubeClient) -> None:
    planned_from = (await client.apply(CONFIG_MAP, config_map("scores", auc="0.71")))["metadata"]["resourceVersion"]
    newer = (await client.apply(CONFIG_MAP, config_map("scores", auc="0.72")))["metadata"]["resourceVersion"]
    with pytest.raises(Stale) as caught:
        await client.apply(CONFIG_MAP, config_map("scores", auc="0.8"), resource_version=planned_from)
    assert caught.value.retryable
    await client.apply(CONFIG_MAP, config_map("scores", auc="0.8"), resource_version=newer)


async def test_a_field_of_another_manager_is_taken_by_force_alone(server: KubeApiServer, client: KubeClient) -> None:
    server.apply(config_map("scores", auc="0.5"), manager="somebody")
    with pytest.raises(OwnedByOther):
        await client.apply(CONFIG_MAP, config_map("scores", auc="0.71"), force=False)
    assert (await client.apply(CONFIG_MAP, config_map("scores", auc="0.71")))["data"] == {"auc": "0.71"}


async def test_create_meets_what_is_there(client: KubeClient) -> None:
    await client.create(CONFIG_MAP, config_map("scores"))
    with pytest.raises(AlreadyExists):
        await client.create(CONFIG_MAP, config_map("scores"))


async def test_delete_says_whether_there_was_one(client: KubeClient) -> None:
    uid = (await client.create(CONFIG_MAP, config_map("scores")))["metadata"]["uid"]
    with pytest.raises(Stale):
        await client.delete(CONFIG_MAP, SCORES, uid="another")
    assert await client.delete(CONFIG_MAP, SCORES, uid=uid)
    assert not await client.delete(CONFIG_MAP, SCORES)


async def test_status_is_replaced_whole_and_only_from_its_version(server: KubeApiServer, client: KubeClient) -> None:
    key = ObjectKey("flights", "delay")
    made = server.create(model_deployment("delay"))
    version = made["metadata"]["resourceVersion"]
    ready = {"type": "Ready", "status": "True", "reason": "AllReady", "message": "", "observedGeneration": 1}
    ready["lastTransitionTime"] = "2026-11-21T07:00:00Z"
    after = await client.patch_status(
        MODEL_DEPLOYMENT, key, {"observedGeneration": 1, "conditions": [ready]}, resource_version=version
    )
    assert after["status"]["conditions"] == [ready]
    last = await client.patch_status(
        MODEL_DEPLOYMENT, key, {"observedGeneration": 1}, resource_version=after["metadata"]["resourceVersion"]
    )
    assert last["status"] == {"observedGeneration": 1}
    assert last["spec"] == made["spec"]
    with pytest.raises(Stale):
        await client.patch_status(MODEL_DEPLOYMENT, key, {}, resource_version=version)


async def test_finalizers_are_set_from_the_version_that_they_were_read_at(
    server: KubeApiServer, client: KubeClient
) -> None:
    version = server.create(config_map("scores"))["metadata"]["resourceVersion"]
    named = {"finalizers": ["serving.fairlead.dev/routes"]}
    held = await client.patch_metadata(CONFIG_MAP, SCORES, named, resource_version=version)
    assert held["metadata"]["finalizers"] == ["serving.fairlead.dev/routes"]
    with pytest.raises(Stale):
        await client.patch_metadata(CONFIG_MAP, SCORES, {"finalizers": []}, resource_version=version)
    now = held["metadata"]["resourceVersion"]
    freed = await client.patch_metadata(CONFIG_MAP, SCORES, {"finalizers": []}, resource_version=now)
    assert not freed["metadata"].get("finalizers")


async def test_an_unknown_field_is_refused_with_its_name(client: KubeClient) -> None:
    wrong = model_deployment("delay")
    wrong["spec"]["variant"] = []
    with pytest.raises(Invalid, match="variant") as caught:
        await client.apply(MODEL_DEPLOYMENT, wrong)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (Refuse(403, "Forbidden", "configmaps is forbidden: User may not"), Forbidden),
        (Refuse(403, "Forbidden", 'admission webhook "x" denied the request: no'), Invalid),
        (Refuse(422, "Invalid", "spec.x: Required value"), Invalid),
        (Refuse(400, "BadRequest", "cannot be read"), Invalid),
        (
            Refuse(500, "InternalError", "failed to create typed patch object (flights/a): .spec.x: not declared"),
            Invalid,
        ),
        (Refuse(500, "", "failed to convert new object (a/s; /v1, Kind=Secret) to proper version: illegal"), Invalid),
        (Refuse(409, "Conflict", "the object has been modified"), Stale),
        (Refuse(410, "Expired", "too old"), Expired),
    ],
)
async def test_a_refusal_has_its_class_and_is_not_tried_again(
    server: KubeApiServer, client: KubeClient, refusal: Refuse, error: type[KubeError]
) -> None:
    server.faults.inject(refusal, calls("apply", "configmaps"))
    with pytest.raises(error, match="apply /api/v1/namespaces/flights/configmaps/scores"):
        await client.apply(CONFIG_MAP, config_map("scores"))
    assert len(server.writes) == 1


async def test_what_is_asked_to_wait_waits_whatever_its_verb(server: KubeApiServer, tmp_path: Path) -> None:
    waited: list[float] = []
    counted: list[tuple[str, str, str]] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    server.faults.inject(Refuse(429, "TooManyRequests", retry_after_s=3), calls("create", "configmaps"), times=2)
    async with client_of(
        server,
        tmp_path,
        patience=Patience(),
        sleep=sleep,
        observe=lambda verb, kind, code, _: counted.append((verb, kind, code)),
    ) as client:
        await client.create(CONFIG_MAP, config_map("scores"))
    assert waited == [3.0, 3.0]
    assert counted == [("create", "configmaps", code) for code in ("429", "429", "201")]


async def test_it_does_not_wait_longer_than_it_has_patience(server: KubeApiServer, tmp_path: Path) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    server.faults.inject(Refuse(429, "TooManyRequests", retry_after_s=600), calls("get", "configmaps"), times=9)
    async with client_of(server, tmp_path, patience=Patience(), sleep=sleep) as client:
        with pytest.raises(Unavailable) as caught:
            await client.get(CONFIG_MAP, SCORES)
    assert waited == [10.0, 10.0, 10.0]
    assert caught.value.code == 429
    assert caught.value.retryable


@pytest.mark.parametrize("fault", [Refuse(500, "InternalError"), Refuse(503, "ServiceUnavailable"), Drop(), Hang()])
async def test_reads_and_applies_outlive_what_passes(
    server: KubeApiServer, tmp_path: Path, fault: Refuse | Drop | Hang
) -> None:
    server.create(config_map("scores"))
    patience = Patience(attempt_s=0.2, first_pause_s=0.01)
    async with client_of(server, tmp_path, patience=patience) as client:
        server.faults.inject(fault, calls("get", "configmaps"), times=2)
        await client.get(CONFIG_MAP, SCORES)
        server.faults.inject(fault, calls("apply", "configmaps"), times=2)
        await client.apply(CONFIG_MAP, config_map("scores", auc="1"))
        server.faults.inject(fault, calls("delete", "configmaps"))
        await client.delete(CONFIG_MAP, SCORES)


async def test_it_gives_up_after_so_many_attempts(server: KubeApiServer, client: KubeClient) -> None:
    server.faults.inject(Refuse(500, "InternalError"), calls("get", "configmaps"), times=9)
    with pytest.raises(Unavailable):
        await client.get(CONFIG_MAP, SCORES)
    assert len(server.requests) == 4


@pytest.mark.parametrize("fault", [Refuse(500, "InternalError"), LoseAnswer()])
async def test_a_create_that_may_have_been_done_is_not_done_again(
    server: KubeApiServer, client: KubeClient, fault: Refuse | LoseAnswer
) -> None:
    server.faults.inject(fault, calls("create", "configmaps"))
    with pytest.raises(Unavailable):
        await client.create(CONFIG_MAP, config_map("scores"))
    assert len(server.writes) == 1


async def test_an_apply_whose_answer_is_lost_is_done_again(server: KubeApiServer, client: KubeClient) -> None:
    server.faults.inject(LoseAnswer(), calls("apply", "configmaps"))
    assert (await client.apply(CONFIG_MAP, config_map("scores", auc="1")))["data"] == {"auc": "1"}


async def test_a_call_to_nowhere_ends_in_time(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        async with KubeApiServer() as gone:
            client = await stack.enter_async_context(client_of(gone, tmp_path))
        counted: list[str] = []
        client._observe = lambda _verb, _kind, code, _s: counted.append(code)
        with pytest.raises(Unavailable, match="get /api/v1/namespaces/flights/configmaps/scores"):
            await client.get(CONFIG_MAP, SCORES)
        assert counted == ["connection"] * 4


async def test_a_rotated_token_is_read_again(tmp_path: Path) -> None:
    async with KubeApiServer(namespaces=["flights"], token="first") as server, client_of(server, tmp_path) as client:  # noqa: S106 -- of a test
        await client.apply(CONFIG_MAP, config_map("scores"))
        server.token = "second"  # noqa: S105 -- of a test
        server.kubeconfig(tmp_path)
        await client.apply(CONFIG_MAP, config_map("scores", auc="1"))
        events = client.watch(CONFIG_MAP, resource_version="0", namespace="flights")
        server.token = "third"  # noqa: S105 -- of a test
        server.kubeconfig(tmp_path)
        assert (await anext(events)).object["metadata"]["name"] == "scores"
        server.token = "fourth"  # noqa: S105 -- of a test
        with pytest.raises(Unauthorized):
            await client.get(CONFIG_MAP, SCORES)


async def test_in_a_pod_the_service_account_is_used_and_read_again(tmp_path: Path) -> None:
    for file, text in {"token": "first", "ca.crt": "CA", "namespace": "fairlead-system\n"}.items():
        (tmp_path / file).write_text(text)
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    connection = await connect(service_account=tmp_path, environ=environ)
    assert connection.namespace == "fairlead-system"
    assert connection.configuration.host == "https://[fd00::1]:443"
    assert connection.configuration.api_key["BearerToken"].endswith("first")
    (tmp_path / "token").write_text("second")
    await connection.renew()
    assert connection.configuration.api_key["BearerToken"].endswith("second")


async def test_without_any_credentials_it_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(Unauthorized, match="--kubeconfig"):
        await connect(kubeconfig=tmp_path / "none", service_account=tmp_path)


async def test_nothing_is_sent_once_the_fence_is_down(server: KubeApiServer, client: KubeClient) -> None:
    def fence() -> None:
        raise LeaseLost("not the leader")

    fenced = client.fenced(fence)
    server.create(config_map("scores"))
    await fenced.get(CONFIG_MAP, SCORES)
    writes: list[Any] = [
        fenced.apply(CONFIG_MAP, config_map("scores")),
        fenced.create(CONFIG_MAP, config_map("others")),
        fenced.replace(CONFIG_MAP, config_map("scores")),
        fenced.delete(CONFIG_MAP, SCORES),
        fenced.patch_status(MODEL_DEPLOYMENT, SCORES, {}, resource_version="1"),
        fenced.patch_metadata(CONFIG_MAP, SCORES, {}, resource_version="1"),
    ]
    for write in writes:
        with pytest.raises(LeaseLost):
            await write
    assert server.writes == []


async def test_the_fence_is_asked_before_each_attempt(server: KubeApiServer, client: KubeClient) -> None:
    answers = iter([None, LeaseLost("not the leader any more")])

    def fence() -> None:
        if (error := next(answers)) is not None:
            raise error

    server.faults.inject(Refuse(500, "InternalError"), calls("apply"), times=5)
    with pytest.raises(LeaseLost):
        await client.fenced(fence).apply(CONFIG_MAP, config_map("scores"))
    assert len(server.writes) == 1


async def watched(client: KubeClient, version: str, count: int) -> list[WatchEvent]:
    events = client.watch(CONFIG_MAP, resource_version=version, namespace="flights", silence_s=0.5)
    return [await anext(events) for _ in range(count)]


async def test_a_watch_tells_what_happens_and_sends_bookmarks(server: KubeApiServer, client: KubeClient) -> None:
    version = server.create(config_map("scores"))["metadata"]["resourceVersion"]
    server.patch("ConfigMap", "flights", "scores", {"data": {"auc": "1"}})
    server.delete("ConfigMap", "flights", "scores")
    told = [event.change for event in await watched(client, version, 3)]
    assert told == [Change.MODIFIED, Change.DELETED, Change.BOOKMARK]


async def test_a_line_of_any_length_is_read(server: KubeApiServer, client: KubeClient) -> None:
    version = server.create(config_map("scores"))["metadata"]["resourceVersion"]
    long = "x" * 900_000
    server.patch("ConfigMap", "flights", "scores", {"data": {"long": long}})
    server.patch("ConfigMap", "flights", "scores", {"data": {"long": long[1:]}})
    told = await watched(client, version, 2)
    assert [len(event.object["data"]["long"]) for event in told] == [900_000, 899_999]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (CutLine(), Unavailable),
        (FallSilent(), Unavailable),
        (WatchError(410), Expired),
        (WatchError(500, "InternalError", "etcdserver: leader changed"), Unavailable),
    ],
)
async def test_a_broken_watch_ends_in_an_error(
    server: KubeApiServer, client: KubeClient, fault: CutLine | FallSilent | WatchError, error: type[KubeError]
) -> None:
    version = server.create(config_map("scores"))["metadata"]["resourceVersion"]
    server.faults.inject(fault, calls("watch", "configmaps"))
    async with asyncio.timeout(5):
        with pytest.raises(error):
            await watched(client, version, 100)


async def test_a_watch_that_the_server_ends_ends(server: KubeApiServer, client: KubeClient) -> None:
    version = server.create(config_map("scores"))["metadata"]["resourceVersion"]
    server.faults.inject(End(), calls("watch", "configmaps"))
    events = [event async for event in client.watch(CONFIG_MAP, resource_version=version)]
    assert [event for event in events if event.change is not Change.BOOKMARK] == []
