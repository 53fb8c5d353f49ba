"""The operator's client, watches, Lease and Kopf on a real kube-apiserver."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fairlead.clock import SystemClock
from fairlead_operator.assembly import Access, Control, Runtime, Surroundings, build
from fairlead_operator.handlers import Transport, kopf_settings
from fairlead_operator.metrics import OperatorMetrics
from fairlead_operator.platforms.kubernetes.api import Change
from fairlead_operator.platforms.kubernetes.client import KubeClient
from fairlead_operator.platforms.kubernetes.connection import Connection, connect
from fairlead_operator.platforms.kubernetes.errors import (
    AlreadyExists,
    Invalid,
    KindMissing,
    NotFound,
    OwnedByOther,
    Stale,
)
from fairlead_operator.platforms.kubernetes.events import EventSink
from fairlead_operator.platforms.kubernetes.kinds import (
    CONFIG_MAP,
    INFERENCE_SERVICE,
    LEASE,
    MODEL_DEPLOYMENT,
    OURS,
    SECRET,
    Kind,
)
from fairlead_operator.runtime.keys import ObjectKey
from fairlead_operator.settings import Settings
from support.cluster import Cluster
from support.operators import CRD, HASTE, QUICK, Noting, config_map, dice, model_deployment
from support.waiting import until

NOWHERE = Kind("example.org", "v1", "Absent", "absents")
"""A kind that no cluster serves."""


@pytest.fixture
async def connection(cluster: Cluster) -> Connection:
    return await connect(kubeconfig=cluster.kubeconfig)


@pytest.fixture
async def client(connection: Connection) -> AsyncIterator[KubeClient]:
    client = KubeClient(connection, patience=HASTE, randomness=dice())
    yield client
    await client.close()


def made(name: str, namespace: str, **data: str) -> dict[str, Any]:
    return config_map(name, namespace=namespace, owner=ObjectKey(namespace, "delay"), **data)


async def test_writes_have_the_errors_that_they_have_in_memory(
    cluster: Cluster, client: KubeClient, namespace: str
) -> None:
    key = ObjectKey(namespace, "scores")
    with pytest.raises(NotFound):
        await client.get(CONFIG_MAP, key)
    with pytest.raises(KindMissing):
        await client.list(NOWHERE)
    assert not await client.serves(NOWHERE)
    assert await client.serves(INFERENCE_SERVICE)
    first = (await client.apply(CONFIG_MAP, made("scores", namespace, auc="1")))["metadata"]
    again = (await client.apply(CONFIG_MAP, made("scores", namespace, auc="1")))["metadata"]
    assert again["resourceVersion"] == first["resourceVersion"]
    await client.apply(CONFIG_MAP, made("scores", namespace, auc="2"))
    old = first["resourceVersion"]
    with pytest.raises(Stale):
        await client.apply(CONFIG_MAP, made("scores", namespace, auc="3"), resource_version=old)
    with pytest.raises(Stale):
        await client.delete(CONFIG_MAP, key, resource_version=old)
    with pytest.raises(Stale):
        await client.delete(CONFIG_MAP, key, uid="another")
    with pytest.raises(Stale):
        await client.patch_metadata(CONFIG_MAP, key, {"finalizers": []}, resource_version=old)
    with pytest.raises(AlreadyExists):
        await client.create(CONFIG_MAP, made("scores", namespace))
    cluster.apply({**made("scores", namespace, auc="8")})
    with pytest.raises(OwnedByOther):
        await client.apply(CONFIG_MAP, made("scores", namespace, auc="9"), force=False)
    current = (await client.get(CONFIG_MAP, key))["metadata"]["resourceVersion"]
    held = {"finalizers": ["serving.fairlead.dev/routes"]}
    patched = await client.patch_metadata(CONFIG_MAP, key, held, resource_version=current)
    freed = await client.patch_metadata(
        CONFIG_MAP, key, {"finalizers": []}, resource_version=patched["metadata"]["resourceVersion"]
    )
    assert "finalizers" not in freed["metadata"]
    assert await client.delete(CONFIG_MAP, key, uid=first["uid"])
    assert not await client.delete(CONFIG_MAP, key)


async def test_unknown_fields_and_wrong_types_are_refused_for_good(client: KubeClient, namespace: str) -> None:
    wrong = {**made("scores", namespace), "dater": {}}
    with pytest.raises(Invalid, match="dater"):
        await client.apply(CONFIG_MAP, wrong)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": namespace}}
    with pytest.raises(Invalid) as caught:
        await client.apply(SECRET, {**secret, "data": {"key": "canary!"}})
    assert "canary" not in str(caught.value)


async def test_lists_come_in_pages_and_watches_go_on_from_them(client: KubeClient, namespace: str) -> None:
    for number in range(3):
        await client.apply(CONFIG_MAP, made(f"c{number}", namespace))
    pages = [page async for page in client.pages(CONFIG_MAP, namespace=namespace, labels=OURS)]
    assert sum(len(page.items) for page in pages) == 3
    events = client.watch(CONFIG_MAP, resource_version=pages[-1].resource_version, namespace=namespace, labels=OURS)
    await client.delete(CONFIG_MAP, ObjectKey(namespace, "c1"))
    async with asyncio.timeout(10):
        assert (await anext(events)).change is Change.DELETED


async def test_a_lease_passes_from_one_to_the_other_and_deployments_are_heard_of(
    cluster: Cluster, connection: Connection, client: KubeClient, namespace: str
) -> None:
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    await until(lambda: client.serves(MODEL_DEPLOYMENT))
    first, second = (runtime_of(connection, client, namespace, name) for name in ("first", "second"))
    running = [asyncio.create_task(one.run()) for one, _ in (first, second)]
    try:
        await until(lambda: first[0].leader.is_leading or second[0].leader.is_leading, timeout_s=20)
        leader, follower = sorted((first, second), key=lambda one: not one[0].leader.is_leading)
        await client.apply(MODEL_DEPLOYMENT, model_deployment("delay", namespace))
        key = ObjectKey(namespace, "delay-mark")
        await until(lambda: exists(client, key))
        assert follower[1].runs == []
        await status_is_replaced(client, namespace)
        leader[0].stop()
        begun = time.monotonic()
        await until(lambda: follower[0].leader.is_leading)
        assert time.monotonic() - begun < 5
        await client.delete(CONFIG_MAP, key)
        await until(lambda: exists(client, key))
        leases = await client.list(LEASE, namespace=namespace)
        assert [lease["spec"]["leaseTransitions"] for lease in leases] == [1]
        await an_event_is_taken(client, namespace)
    finally:
        first[0].stop()
        second[0].stop()
        await asyncio.gather(*running)


async def status_is_replaced(client: KubeClient, namespace: str) -> None:
    key = ObjectKey(namespace, "delay")
    version = (await client.get(MODEL_DEPLOYMENT, key))["metadata"]["resourceVersion"]
    status = {"observedGeneration": 1}
    after = await client.patch_status(MODEL_DEPLOYMENT, key, status, resource_version=version)
    assert after["status"] == status
    with pytest.raises(Stale):
        await client.patch_status(MODEL_DEPLOYMENT, key, {}, resource_version=version)


async def an_event_is_taken(client: KubeClient, namespace: str) -> None:
    counted: list[str] = []
    sink = EventSink(
        client,
        instance="operator-0",
        clock=SystemClock(),
        new_id=lambda: uuid.uuid4().hex,
        observe=lambda result: counted.append(result.value),
    )
    posting = asyncio.create_task(sink.run())
    sink.post(await client.get(MODEL_DEPLOYMENT, ObjectKey(namespace, "delay")), "WeightRaised", "boosted has 10 %")
    await until(lambda: bool(counted))
    posting.cancel()
    assert counted == ["posted"]


async def exists(client: KubeClient, key: ObjectKey) -> bool:
    try:
        await client.get(CONFIG_MAP, key)
    except NotFound:
        return False
    return True


def runtime_of(connection: Connection, client: KubeClient, namespace: str, name: str) -> tuple[Runtime, Noting]:
    settings = Settings(**{**QUICK, "pod_name": name, "namespaces": (namespace,)})
    controllers: list[Noting] = []

    def control_of(access: Access) -> Control:
        controllers.append(Noting(access))
        return Control(controllers[0])

    def transport_of(parents: Any) -> Callable[[], Any]:
        return Transport(
            connection,
            kopf_settings(attempt_s=5, watch_timeout_s=60, silence_s=90),
            lambda resource, deleted: parents.heard(resource, deleted=deleted),
            namespaces=(namespace,),
            now=time.monotonic,
            randomness=dice(),
            restarted=lambda: None,
        ).run

    surroundings = Surroundings(
        now=time.monotonic,
        clock=SystemClock(),
        randomness=dice(),
        new_id=lambda: uuid.uuid4().hex,
        namespace=namespace,
    )
    metrics = OperatorMetrics(CollectorRegistry(), "test")
    runtime = build(settings, client, control_of, surroundings=surroundings, metrics=metrics, transport_of=transport_of)
    return runtime, controllers[0]
