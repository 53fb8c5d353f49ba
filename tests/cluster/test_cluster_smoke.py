"""The cluster itself, with manifests written by hand: real pods of the model server behind KServe, istiod and Envoy."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import grpc.aio
import httpx
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from fairlead.assignment import Layout, assign
from support.cluster import Cluster, KubectlError, wait_for
from support.cluster_store import feature_store_config_map, make_cluster_repo, write_row
from support.models import contract_of, write_model
from support.s3 import S3Server
from support.server_process import ROW
from support.servers import RedisServer

IMAGE = "fairlead.local/server:dev"
MODEL = "arrival-delay"
ARMS = ("boosted", "logistic")
LAYOUT = Layout.of("logistic", {"boosted": 3000})
"""The first arm has the first 3,000 buckets."""
UNITS = [f"unit-{number}" for number in range(2000)]
AT_ONCE = 16
INFER = "/inference.GRPCInferenceService/ModelInfer"
DATATYPES = {str: "BYTES", int: "INT64", float: "FP64"}
CONTENTS = {str: "bytes_contents", int: "int64_contents", float: "fp64_contents"}

SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass(frozen=True, slots=True)
class Deployed:
    """Two arms of one model behind the gateway."""

    cluster: Cluster
    namespace: str
    salt: str

    @property
    def host(self) -> str:
        return _host(self.namespace)

    @property
    def url(self) -> str:
        return f"http://{self.cluster.gateway.address}/v1/models/{MODEL}:predict"

    def headers(self, unit: str) -> dict[str, str]:
        return {"host": self.host, "x-unit-id": unit}

    def expected(self) -> dict[str, str]:
        return {unit: assign(unit, self.salt, LAYOUT) for unit in UNITS}


@pytest.fixture(scope="module")
def deployed(
    cluster: Cluster, s3: S3Server, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("smoke")
    namespace = f"smoke{redis.port}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply(_object("v1", "Namespace", namespace, labels=labels))
    repo = make_cluster_repo(folder / "repo", redis.address)
    write_row(repo, datetime.now(UTC))
    write_model(folder / "model.onnx", contract_of(repo.describe()))
    uri = f"{namespace}+{s3.put('smoke.onnx', (folder / 'model.onnx').read_bytes())}"
    storage, filter_ = _storage_container(namespace, s3), _envoy_filter(cluster, namespace)
    cluster.apply(storage, feature_store_config_map(repo, "feature-store", namespace), _runtime(namespace))
    cluster.apply(*(_inference_service(arm, namespace, uri) for arm in ARMS), _virtual_service(cluster, namespace))
    cluster.apply(filter_)
    try:
        for arm in ARMS:
            cluster.wait_ready("inferenceservice", arm, namespace=namespace, timeout_s=120)
        found = Deployed(cluster, namespace, f"{namespace}/{MODEL}")
        _wait_routed(found)
        yield found
    finally:
        cluster.delete(filter_, storage, _object("v1", "Namespace", namespace))


async def test_units_land_by_the_law_over_rest(deployed: Deployed) -> None:
    async with aiohttp.ClientSession() as client:

        async def ask(unit: str) -> str:
            async with client.post(deployed.url, json={"instances": [ROW]}, headers=deployed.headers(unit)) as answer:
                assert answer.status == 200, await answer.text()
                assert 0 < (await answer.json())["predictions"][0]["probability_late"] <= 1
                return answer.headers["x-variant"]

        landed = dict(zip(UNITS, await _each(ask), strict=True))
    assert landed == deployed.expected()
    assert set(Counter(landed.values())) == set(ARMS)


async def test_units_land_by_the_law_over_grpc(deployed: Deployed) -> None:
    message = _infer().SerializeToString()
    options = [("grpc.default_authority", deployed.host), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(deployed.cluster.gateway.address, options=options) as channel:
        infer = channel.unary_unary(INFER)

        async def ask(unit: str) -> str:
            call = infer(message, metadata=(("x-unit-id", unit),), timeout=20)
            answer = pb.ModelInferResponse.FromString(await call)
            assert {output.name for output in answer.outputs} >= {"probability_late"}
            return str(dict(await call.initial_metadata())["x-variant"])

        landed = dict(zip(UNITS, await _each(ask), strict=True))
    assert landed == deployed.expected()


def test_both_arms_answer_from_pods_of_their_own_with_features_of_redis(deployed: Deployed) -> None:
    for arm in ARMS:
        (pod,) = deployed.cluster.get(
            "pods", namespace=deployed.namespace, selector=f"serving.kserve.io/inferenceservice={arm}"
        )["items"]
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert not any("hostPath" in volume for volume in pod["spec"]["volumes"])
        body = {"instances": [ROW], "parameters": {"report_states": True}}
        answer = httpx.post(f"http://{pod['status']['podIP']}:8080/v1/models/{MODEL}:predict", json=body).json()
        states = answer["parameters"]["feature_states"]
        assert states["origin_weather__temp"] == ["PRESENT"]
        assert states["tail_performance__mean_delay"] == ["NOT_FOUND"]


def test_a_pod_that_is_not_restricted_is_refused(cluster: Cluster, namespace: str) -> None:
    pod = {**_object("v1", "Pod", "rooted", namespace), "spec": {"containers": [{"name": "c", "image": IMAGE}]}}
    with pytest.raises(KubectlError, match='violates PodSecurity "restricted:latest"'):
        cluster.apply(pod)


def test_a_pod_writes_only_to_its_volumes_and_sees_the_host_read_only(cluster: Cluster, namespace: str) -> None:
    places = "/ /usr $(dirname $(command -v python))"
    script = f"id -u; for d in {places}; do touch $d/probe 2>/dev/null && echo wrote $d; done; true"
    container = {"name": "c", "image": IMAGE, "command": ["sh", "-c", script], "securityContext": SECURITY}
    pod = {**_object("v1", "Pod", "probe", namespace), "spec": {"containers": [container], "restartPolicy": "Never"}}
    cluster.apply(pod)
    wait_for(lambda: cluster.get("pod", "probe", namespace=namespace)["status"]["phase"] == "Succeeded")
    assert cluster.kubectl("logs", "probe", f"--namespace={namespace}").split() == ["1000"]


def test_kserve_and_istio_refuse_wrong_objects(cluster: Cluster, namespace: str) -> None:
    wrong = _inference_service("wrong", namespace, "pvc://models/x")
    wrong["spec"]["predictor"] |= {"minReplicas": 3, "maxReplicas": 1}
    with pytest.raises(KubectlError, match="MinReplicas"):
        cluster.apply(wrong)
    route = _virtual_service(cluster, namespace)
    route["spec"]["http"][0]["route"][0]["weight"] = -5
    with pytest.raises(KubectlError, match="weight"):
        cluster.apply(route)


async def _each(ask: Any) -> list[str]:
    """Ask for every unit, some at once, and return the arms in order."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def turn(unit: str) -> str:
        async with turns:
            arm: str = await ask(unit)
            return arm

    return await asyncio.gather(*(turn(unit) for unit in UNITS))


def _wait_routed(deployed: Deployed) -> None:
    """Wait until route and filter have reached the gateway and both arms their endpoints."""

    answers: list[httpx.Response] = []

    def routed() -> bool:
        units = [next(u for u, arm in deployed.expected().items() if arm == wanted) for wanted in ARMS]
        with httpx.Client(trust_env=False) as client:
            answers[:] = [
                client.post(deployed.url, json={"instances": [ROW]}, headers=deployed.headers(u)) for u in units
            ]
        return [a.headers.get("x-variant") for a in answers if a.status_code == 200] == list(ARMS)

    def story() -> str:
        return f"{[(a.status_code, a.headers, a.text) for a in answers]}\n{deployed.cluster.story(deployed.namespace)}"

    wait_for(routed, timeout_s=30, otherwise=story)


def _host(namespace: str) -> str:
    return f"{namespace}.example.com"


def _infer() -> Any:
    message = pb.ModelInferRequest(model_name=MODEL)
    for name, value in ROW.items():
        tensor = message.inputs.add(name=name, datatype=DATATYPES[type(value)], shape=[1, 1])
        sent = value.encode() if isinstance(value, str) else value
        getattr(tensor.contents, CONTENTS[type(value)]).append(sent)
    return message


def _object(
    api_version: str, kind: str, name: str, namespace: str = "", *, labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    metadata = {"name": name, "labels": dict(labels or {}), **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _storage_container(namespace: str, s3: S3Server) -> dict[str, Any]:
    """Return what fetches models of a scheme of this test's own, in front of the scheme that ``fetch`` knows."""
    environment = {**s3.environment, "HOME": "/mnt/models"}
    fetch = f'exec /opt/fairlead/entrypoint fetch "${{0#{namespace}+}}" "$1"'
    return {
        **_object("serving.kserve.io/v1alpha1", "ClusterStorageContainer", namespace),
        "spec": {
            "container": {
                "name": "storage-initializer",
                "image": IMAGE,
                "command": ["sh", "-c", fetch],
                "env": [{"name": name, "value": value} for name, value in environment.items()],
                "securityContext": SECURITY,
            },
            "supportedUriFormats": [{"prefix": f"{namespace}+"}],
            "workloadType": "initContainer",
        },
    }


def _runtime(namespace: str) -> dict[str, Any]:
    container = {
        "name": "kserve-container",
        "image": IMAGE,
        "args": ["--model=/mnt/models/model.onnx", "--feature-store=/etc/fairlead/feature-store", "--host=0.0.0.0"],
        "ports": [
            {"name": "http-rest", "containerPort": 8080, "protocol": "TCP"},
            {"name": "grpc-oip", "containerPort": 8081, "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": 8080}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "securityContext": SECURITY,
        "volumeMounts": [
            {"name": "feature-store", "mountPath": "/etc/fairlead/feature-store"},
            {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 -- the container's own
        ],
    }
    return {
        **_object("serving.kserve.io/v1alpha1", "ServingRuntime", "fairlead-smoke", namespace),
        "spec": {
            "supportedModelFormats": [{"name": "fairlead-onnx", "version": "1", "autoSelect": False}],
            "protocolVersions": ["v1", "v2", "grpc-v2"],
            "containers": [container],
            "volumes": [
                {"name": "feature-store", "configMap": {"name": "feature-store"}},
                {"name": "scratch", "emptyDir": {}},
            ],
        },
    }


def _inference_service(arm: str, namespace: str, uri: str) -> dict[str, Any]:
    labels = {"networking.kserve.io/visibility": "cluster-local"}
    service = _object("serving.kserve.io/v1beta1", "InferenceService", arm, namespace, labels=labels)
    service["metadata"]["annotations"] = {"serving.kserve.io/deploymentMode": "Standard"}
    service["spec"] = {
        "predictor": {
            "minReplicas": 1,
            "maxReplicas": 1,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "model": {
                "modelFormat": {"name": "fairlead-onnx", "version": "1"},
                "runtime": "fairlead-smoke",
                "protocolVersion": "v2",
                "storageUri": uri,
                "args": [f"--variant={arm}", f"--revision={arm}-1"],
            },
        }
    }
    return service


def _virtual_service(cluster: Cluster, namespace: str) -> dict[str, Any]:
    def route(name: str, port: int, match: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "name": f"{namespace}.{name}",
            **({"match": match} if match else {}),
            "route": [
                {
                    "destination": {
                        "host": f"{s.arm}-predictor.{namespace}.svc.cluster.local",
                        "port": {"number": port},
                    },
                    "weight": s.width,
                    "headers": {"response": {"set": {"x-variant": s.arm}}},
                }
                for s in LAYOUT.slices
            ],
        }

    calls = [{"headers": {"content-type": {"prefix": "application/grpc"}}}]
    return {
        **_object("networking.istio.io/v1", "VirtualService", "smoke", namespace),
        "spec": {
            "hosts": [_host(namespace)],
            "gateways": [cluster.gateway.name],
            "http": [route("grpc", 8081, calls), route("rest", 80, [])],
        },
    }


def _envoy_filter(cluster: Cluster, namespace: str) -> dict[str, Any]:
    salted = {"pattern": {"regex": "^"}, "substitution": f"{namespace}/{MODEL}:"}
    policy = {"header": {"header_name": "x-unit-id", "regex_rewrite": salted}}
    value = {"route": {"hash_policy": [policy], "weighted_clusters": {"use_hash_policy": True}}}
    patches = [
        {
            "applyTo": "HTTP_ROUTE",
            "match": {
                "context": "GATEWAY",
                "routeConfiguration": {"vhost": {"route": {"name": f"{namespace}.{name}"}}},
            },
            "patch": {"operation": "MERGE", "value": value},
        }
        for name in ("grpc", "rest")
    ]
    return {
        **_object("networking.istio.io/v1alpha3", "EnvoyFilter", f"smoke-{namespace}", cluster.gateway.namespace),
        "spec": {"workloadSelector": {"labels": dict(cluster.gateway.selector)}, "configPatches": patches},
    }
