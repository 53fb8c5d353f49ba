"""The clients that operators use take the in-memory server for a kube-apiserver."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import kopf
from kubernetes.aio import client, config

from support.kube import KubeApiServer, WatchError
from support.kube.contract import definition, probe
from support.waiting import until


def connected(server: KubeApiServer) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=server.url)

    return registry


async def test_kopf_sees_what_is_there_and_what_changes_and_survives_an_expired_watch(
    kube_server: KubeApiServer,
) -> None:
    kube_server.create(definition())
    kube_server.create(probe("a", mode="Fast"))
    registry = connected(kube_server)
    seen: list[tuple[str | None, str]] = []

    @kopf.on.event("probes", registry=registry)
    async def on_event(type: str | None, name: str, **_: Any) -> None:  # noqa: A002  kopf's name
        seen.append((type, name))

    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.reconnect_backoff = 0.01
    stop = asyncio.Event()
    operator = asyncio.create_task(
        kopf.operator(registry=registry, settings=settings, clusterwide=True, standalone=True, stop_flag=stop)
    )
    await until(lambda: (None, "a") in seen)
    kube_server.create(probe("b"))
    await until(lambda: ("ADDED", "b") in seen)
    kube_server.interrupt_watches(WatchError())
    await until(lambda: seen.count((None, "b")) == 1)
    kube_server.delete("probes", "default", "a")
    await until(lambda: ("DELETED", "a") in seen)
    stop.set()
    await operator


async def test_kopf_handles_and_finishes_with_annotations_and_a_finalizer(kube_server: KubeApiServer) -> None:
    kube_server.create(definition())
    registry = connected(kube_server)
    done: list[str] = []

    @kopf.on.create("probes", registry=registry)
    async def on_create(name: str, **_: Any) -> None:
        done.append(f"create {name}")

    @kopf.on.delete("probes", registry=registry)
    async def on_delete(name: str, **_: Any) -> None:
        done.append(f"delete {name}")

    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    stop = asyncio.Event()
    operator = asyncio.create_task(
        kopf.operator(registry=registry, settings=settings, clusterwide=True, standalone=True, stop_flag=stop)
    )
    kube_server.create(probe("a"))
    await until(lambda: done == ["create a"])
    kube_server.delete("probes", "default", "a")
    await until(lambda: done == ["create a", "delete a"] and not kube_server.objects("probes"))
    stop.set()
    await operator


async def test_the_official_client_reads_the_kubeconfig_and_the_objects(
    kube_server: KubeApiServer, tmp_path: Path
) -> None:
    kube_server.token = "first"  # noqa: S105  a word, not a secret
    kube_server.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "1"}})
    settings = client.Configuration()
    await config.load_kube_config(str(kube_server.kubeconfig(tmp_path)), client_configuration=settings)
    async with client.ApiClient(settings) as api:
        core = client.CoreV1Api(api)
        found = await core.list_namespaced_config_map("default")
        assert [one.data for one in found.items] == [{"x": "1"}]
        customs = client.CustomObjectsApi(api)
        place = ("serving.kserve.io", "v1beta1", "flights", "inferenceservices")
        listed: Any = await customs.list_namespaced_custom_object(*place)
        assert listed["items"] == []
