"""How much the whole operator takes where many ModelDeployments are served already."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from fairlead_operator.api.objects import from_object
from fairlead_operator.core.desired import desired_from
from fairlead_operator.core.record import dumped, loaded
from fairlead_operator.platforms.kubernetes.platform import RECORD_ANNOTATION
from fairlead_operator.platforms.kubernetes.render import Place, pod_identity, read_keys, read_route, virtual_service
from fairlead_operator.runtime.keys import ObjectKey
from support.cluster_world import RELEASE, Scene, manual, scene_of
from support.kube import KubeApiServer
from support.operator_process import OperatorProcess
from support.scale import Figures, reconciled, total
from support.waiting import until

_PATTERN = "m0000"
_SHARED = {"ServingRuntime", "ClusterStorageContainer", "Lease", "Event", "CustomResourceDefinition"}
FLAGS = ("--http-host", "127.0.0.1", "--log-format", "text", "--default-release", RELEASE, "--own-namespace", "default")


async def started(kubeconfig: Path, *flags: str, output: int | None = None) -> OperatorProcess:
    """Start ``python -m fairlead_operator run``; the caller ends it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    arguments = ("-m", "fairlead_operator", "run", "--kubeconfig", str(kubeconfig), "--http-port", str(port), *FLAGS)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, *flags, stderr=output)
    return OperatorProcess(process, port)


async def measured_for_real(
    folder: Path, *, deployments: int, settle_s: float, steady_s: float
) -> tuple[Figures, list[str]]:
    """Start the operator where everything is as it should be; return what that took, and what it has written."""
    made = manual(10, _PATTERN, modelName="model")
    async with scene_of(folder, made) as scene:
        server = scene.server
        async with scene.life() as life:
            await life.rest(ObjectKey("flights", _PATTERN))
        originals = list(_originals(server))
        for number in range(1, deployments):
            multiply(scene, originals, f"m{number:04}")
        server.forget_requests()
        begun = time.monotonic()
        process = await started(server.kubeconfig(folder))
        try:
            figures = await _figures(process, begun, deployments, settle_s, steady_s)
        finally:
            process.process.terminate()
            await process.process.wait()
        return figures, [str(write) for write in server.writes if write.call.plural != "leases"]


def multiply(scene: Scene, originals: list[tuple[str, dict[str, Any]]], name: str) -> None:
    """Put a copy of one deployment's whole world under another name beside it."""
    store = scene.server.store
    uids: dict[str, str] = {}
    in_force = ""
    for number, (resource, value) in enumerate(originals):
        text = orjson.dumps(value).decode().replace(_PATTERN, name)
        for before, after in uids.items():
            text = text.replace(before, after)
        copy = orjson.loads(text)
        uid = f"{name}-{number:04}"
        uids[value["metadata"]["uid"]] = uid
        copy["metadata"]["uid"] = uid
        if copy["kind"] == "ModelDeployment":
            in_force = desired_from(from_object(copy), RELEASE, pod_identity).fingerprint
        elif copy["kind"] == "ConfigMap":
            copy["data"]["rollout.json"] = _recorded(copy["data"]["rollout.json"], in_force)
        elif copy["kind"] == "VirtualService":
            annotations = copy["metadata"]["annotations"]
            annotations[RECORD_ANNOTATION] = _recorded(annotations[RECORD_ANNOTATION], in_force)
            copy["spec"] = _rendered(copy, originals, name)
        copy["metadata"].pop("resourceVersion", None)
        store.put(resource, {part: copy[part] for part in copy if part not in {"apiVersion", "kind"}})


def _recorded(text: str, in_force: str) -> str:
    record = loaded(text)
    assert record is not None
    return dumped(replace(record, in_force=in_force))


def _rendered(service: dict[str, Any], originals: list[tuple[str, dict[str, Any]]], name: str) -> Any:
    """Return the spec of a copied VirtualService: what is signed in it has the deployment's own salt."""
    secret = next(value for _, value in originals if value["kind"] == "Secret")
    route = read_route(service)
    assert route is not None
    annotations = {RECORD_ANNOTATION: service["metadata"]["annotations"][RECORD_ANNOTATION]}
    return virtual_service(Place("flights", name, "x"), route, read_keys(secret)[0], annotations=annotations)["spec"]


def _originals(server: KubeApiServer) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the deployment's objects, owners before what they own."""
    found = [
        (kind.resource, value)
        for kind in server.catalog
        if kind.kind not in _SHARED
        for value in server.objects(kind.kind)
        if _PATTERN in value["metadata"]["name"]
    ]
    found.sort(key=lambda one: int(one[1]["metadata"]["resourceVersion"]))
    first = [one for one in found if one[1]["kind"] == "ModelDeployment"]
    yield from first
    yield from sorted((one for one in found if one not in first), key=lambda one: one[1]["metadata"]["uid"])


async def _figures(
    process: OperatorProcess, begun: float, deployments: int, settle_s: float, steady_s: float
) -> Figures:
    async def all_reconciled() -> bool:
        return await reconciled(process) + await again(process) >= deployments

    await until(all_reconciled, timeout_s=150)
    cold_start_s, cold_cpu_s = time.monotonic() - begun, process.cpu_s()
    await asyncio.sleep(settle_s)
    before, cpu_before = time.monotonic(), process.cpu_s()
    await asyncio.sleep(steady_s)
    used, passed = process.cpu_s() - cpu_before, time.monotonic() - before
    now_mib, most_mib = process.resident_mib()
    return Figures(
        deployments=deployments,
        stored_objects=int(await total(process, "fairlead_stored_objects{")),
        cold_start_s=cold_start_s,
        cold_cpu_s=cold_cpu_s,
        now_mib=now_mib,
        most_mib=most_mib,
        steady_cpu_percent=100 * used / passed,
    )


async def again(process: OperatorProcess) -> float:
    """Return how many reconciles ended well and asked for another."""
    return await total(process, 'fairlead_reconciles_total{result="again"}')
