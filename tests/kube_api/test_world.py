"""The controllers around the API behave as those of a real cluster were seen to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fairlead.clock import Clock
from support.kube import KubeApiServer, kserve_kinds
from support.kube.fates import Crash, ImageAbsent, InitFailure, NeverReady, Ready
from support.kube.store import Object
from support.kube.world import World

RUNTIME = {
    "apiVersion": "serving.kserve.io/v1alpha1",
    "kind": "ServingRuntime",
    "metadata": {"name": "fairlead", "namespace": "flights"},
    "spec": {
        "containers": [
            {
                "name": "kserve-container",
                "image": "fairlead-server",
                "ports": [{"name": "http-rest", "containerPort": 8080}, {"name": "grpc-oip", "containerPort": 8081}],
            }
        ]
    },
}


class HandClock(Clock):
    def __init__(self) -> None:
        self.time_us = 1_700_000_000_000_000

    def now_us(self) -> int:
        return self.time_us

    def pass_s(self, seconds: float) -> None:
        self.time_us += int(seconds * 1e6)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def server(clock: HandClock) -> KubeApiServer:
    server = KubeApiServer(kinds=kserve_kinds(), namespaces=["flights"], clock=clock)
    server.create(RUNTIME)
    return server


@pytest.fixture
def world(server: KubeApiServer) -> World:
    return World(server)


def service(name: str = "churn", **predictor: Any) -> Object:
    model = {"runtime": "fairlead", "modelFormat": {"name": "onnx"}, "storageUri": "fairlead+s3://m/1.onnx@sha256:0"}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": name,
            "namespace": "flights",
            "labels": {"app.kubernetes.io/managed-by": "fairlead"},
            "annotations": {"serving.fairlead.dev/revision": name},
        },
        "spec": {"predictor": {"model": model, "minReplicas": 1, "maxReplicas": 3} | predictor},
    }


def conditions(value: Object) -> dict[str, str]:
    return {one["type"]: one["status"] for one in value["status"]["conditions"]}


@pytest.fixture
def isvc(server: KubeApiServer) -> Callable[[], Object]:
    def read() -> Object:
        found = server.get("isvc", "flights", "churn")
        assert found
        return found

    return read


@pytest.fixture
def deployment(server: KubeApiServer) -> Callable[[], Object]:
    def read() -> Object:
        found = server.get("Deployment", "flights", "churn-predictor")
        assert found
        return found

    return read


async def test_a_service_becomes_a_deployment_a_service_an_autoscaler_and_pods(
    server: KubeApiServer, world: World, isvc: Callable[[], Object], deployment: Callable[[], Object]
) -> None:
    server.create(service())
    await world.settle()

    labels = deployment()["metadata"]["labels"]
    assert labels["app"] == "isvc.churn-predictor"
    assert labels["app.kubernetes.io/managed-by"] == "fairlead"
    (pod,) = world.pods("churn")
    assert pod["metadata"]["annotations"]["serving.fairlead.dev/revision"] == "churn"
    ports = server.objects("Service", "flights")[0]["spec"]["ports"]
    assert [(port["name"], port["port"], port["targetPort"]) for port in ports] == [
        ("http-rest", 80, 8080),
        ("grpc-oip", 8081, 8081),
    ]
    assert server.objects("hpa")[0]["spec"]["minReplicas"] == 1
    assert conditions(isvc())["Ready"] == "True"
    assert isvc()["status"]["modelStatus"]["transitionStatus"] == "UpToDate"


async def test_a_settled_world_writes_nothing_more(server: KubeApiServer, world: World) -> None:
    server.create(service())
    await world.settle()
    revision = server.store.revision
    await world.settle()
    assert server.store.revision == revision


async def test_a_pod_is_ready_when_its_time_has_come(
    server: KubeApiServer, world: World, clock: HandClock, deployment: Callable[[], Object]
) -> None:
    world.will("churn", Ready(after_s=30))
    server.create(service())
    await world.settle()
    assert conditions(deployment())["Available"] == "False"
    clock.pass_s(31)
    await world.settle()
    assert deployment()["status"]["availableReplicas"] == 1


async def test_a_crash_is_told_by_the_pod_alone(
    server: KubeApiServer, world: World, isvc: Callable[[], Object]
) -> None:
    world.will("churn", Crash(exit_code=3, message="digest differs"))
    server.create(service())
    await world.settle()
    (state,) = world.pods("churn")[0]["status"]["containerStatuses"]
    assert state["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert state["lastState"]["terminated"] == {"exitCode": 3, "reason": "Error", "message": "digest differs"}
    assert isvc()["status"]["modelStatus"]["transitionStatus"] == "InProgress"


async def test_a_failed_initializer_is_told_by_the_service_and_never_forgotten(
    server: KubeApiServer, world: World, isvc: Callable[[], Object]
) -> None:
    world.will("churn", InitFailure(exit_code=2, message="no such object"))
    server.create(service())
    await world.settle()
    model = isvc()["status"]["modelStatus"]
    assert model["transitionStatus"] == "BlockedByFailedLoad"
    world.will("churn", Ready())
    await world.settle()
    assert conditions(isvc())["Ready"] == "True"
    assert isvc()["status"]["modelStatus"]["lastFailureInfo"] == model["lastFailureInfo"]


@pytest.mark.parametrize("fate", [NeverReady(), Crash(), ImageAbsent()])
async def test_a_revision_that_never_comes_up_is_ready_while_an_old_pod_lives(
    server: KubeApiServer,
    world: World,
    isvc: Callable[[], Object],
    deployment: Callable[[], Object],
    fate: NeverReady | Crash | ImageAbsent,
) -> None:
    server.create(service())
    await world.settle()
    (old,) = world.pods("churn")
    world.will(old["metadata"]["name"], Ready())
    world.will("churn", fate)
    model = service()["spec"]["predictor"]["model"] | {"env": [{"name": "NEW", "value": "1"}]}
    server.patch("isvc", "flights", "churn", {"spec": {"predictor": {"model": model}}})
    await world.settle()

    assert conditions(isvc())["Ready"] == "True"
    assert isvc()["status"]["observedGeneration"] == deployment()["metadata"]["generation"]
    assert len(world.pods("churn")) == 2
    assert deployment()["status"]["updatedReplicas"] == 1


async def test_more_replicas_are_added_without_touching_those_there_are(
    server: KubeApiServer, world: World, deployment: Callable[[], Object]
) -> None:
    server.create(service())
    await world.settle()
    (old,) = world.pods("churn")
    server.patch("isvc", "flights", "churn", {"spec": {"predictor": {"minReplicas": 3}}})
    await world.settle()
    assert old["metadata"]["name"] in {pod["metadata"]["name"] for pod in world.pods("churn")}
    assert deployment()["status"]["availableReplicas"] == 3
    assert len(server.objects("ReplicaSet")) == 1


async def test_load_scales_within_the_bounds(server: KubeApiServer, world: World) -> None:
    server.create(service())
    world.load("churn", 9)
    await world.settle()
    assert len(world.pods("churn")) == 3


async def test_a_lost_pod_is_replaced(server: KubeApiServer, world: World) -> None:
    server.create(service())
    await world.settle()
    (first,) = world.pods("churn")
    world.evict(first)
    await world.settle()
    assert sorted(pod["status"]["phase"] for pod in world.pods("churn")) == ["Failed", "Running"]


async def test_a_missing_runtime_is_an_invalid_spec_of_unknown_readiness(
    server: KubeApiServer, world: World, isvc: Callable[[], Object]
) -> None:
    server.delete("ServingRuntime", "flights", "fairlead")
    server.create(service())
    await world.settle()
    assert conditions(isvc())["Ready"] == "Unknown"
    assert isvc()["status"]["modelStatus"]["transitionStatus"] == "InvalidSpec"


async def test_a_deleted_service_takes_everything_along_unless_the_controller_is_down(
    server: KubeApiServer, world: World
) -> None:
    server.create(service())
    await world.settle()
    world.kserve.is_up = False
    server.delete("isvc", "flights", "churn")
    await world.settle()
    assert server.objects("isvc")
    world.kserve.is_up = True
    await world.settle()
    for kind in ("isvc", "Deployment", "ReplicaSet", "Pod", "Service", "hpa"):
        assert not server.objects(kind)
