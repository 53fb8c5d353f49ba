"""The doctor against a cluster in memory: nothing wrong, one thing after another, and what a cluster may do to it."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fairlead_operator.doctor.areas.api_server import TRIED, ApiServer
from fairlead_operator.doctor.examine import examine
from fairlead_operator.doctor.findings import Check, Finding, Level, Scope, good
from fairlead_operator.doctor.reader import Reader
from support.doctor_world import (
    KSERVE_SETTINGS,
    NAME,
    NAMESPACE,
    SYSTEM,
    checks_of,
    conditions,
    doctor_cluster,
    examined,
    named,
    of_level,
)
from support.kube import Hang, KubeApiServer, Refuse, calls
from support.operators import client_of, model_deployment

Break = Callable[[KubeApiServer], object]
OURS = {
    "app.kubernetes.io/managed-by": "fairlead",
    "serving.fairlead.dev/deployment": NAME,
    "serving.fairlead.dev/deployment-namespace": NAMESPACE,
}


async def test_a_healthy_cluster_has_nothing_bad_and_nothing_is_written(tmp_path: Path) -> None:
    async with doctor_cluster() as server:
        server.patch("Namespace", "", NAMESPACE, {"metadata": {"labels": _restricted()}})
        server.forget_requests()
        found = await examined(server, tmp_path)
        assert of_level(found, Level.BAD) == []
        # The API in memory has no webhooks, so that what istiod has to refuse is accepted.
        assert [(area, one.subject) for area, one in of_level(found, Level.DOUBT)] == [("Istio", "validation")]
        assert all(one.findings for one in found)
        assert not server.changes
        reviews = {"subjectaccessreviews", "selfsubjectaccessreviews"}
        assert {record.call.plural for record in server.writes} <= reviews


def patched(kind: str, namespace: str, name: str, patch: dict[str, Any]) -> Break:
    return lambda server: server.patch(kind, namespace, name, patch)


def deleted(kind: str, namespace: str, name: str) -> Break:
    return lambda server: server.delete(kind, namespace, name)


def created(*resources: dict[str, Any]) -> Break:
    return lambda server: [server.create(one) for one in resources]


def status(kind: str, namespace: str, name: str, content: dict[str, Any]) -> Break:
    return lambda server: server.set_status(kind, namespace, name, content)


def settings(name: str, content: object) -> Break:
    text = content if isinstance(content, str) or content is None else json.dumps(content)
    return patched("ConfigMap", "kserve", "inferenceservice-config", {"data": {name: text}})


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    state = {"state": {"waiting": {"reason": reason, "message": message}}}
    container = {"name": "kserve-container", "image": "fairlead.local/server:9.9.9", **state, **more}
    return {"phase": "Pending", "containerStatuses": [container]}


def condition(**changed: tuple[str, str, str]) -> Break:
    content = {"observedGeneration": 1, "conditions": conditions(**changed), "variants": []}
    return status("ModelDeployment", NAMESPACE, NAME, content)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is broken, and how the doctor names it."""

    name: str
    act: Break
    area: str
    level: Level
    seen: str
    fix: str


BAD, DOUBT = Level.BAD, Level.DOUBT
CRD_KIND = "CustomResourceDefinition"
FEAST = ("ConfigMap", NAMESPACE, "feast-client")


def operator_cases() -> Iterator[Case]:
    yield Case(
        "CRD",
        deleted(CRD_KIND, "", "modeldeployments.serving.fairlead.dev"),
        "ModelDeployment (CRD)",
        BAD,
        "is not installed",
        "helm upgrade --install fairlead-crds",
    )
    yield Case(
        "operator gone",
        deleted("Deployment", SYSTEM, "fairlead-operator"),
        "operator",
        DOUBT,
        "runs outside the cluster",
        "fine while developing",
    )
    yield Case(
        "operator unavailable",
        status("Deployment", SYSTEM, "fairlead-operator", {"availableReplicas": 0}),
        "operator",
        BAD,
        "0 of 1 available",
        "describe deployment",
    )
    old = {"spec": {"template": {"spec": {"containers": [{"name": "fairlead-operator", "image": "r/operator:0.0.9"}]}}}}
    yield Case(
        "operator's release",
        patched("Deployment", SYSTEM, "fairlead-operator", old),
        "operator",
        DOUBT,
        "operator 0.0.9, this program 0.1.0",
        "helm upgrade",
    )
    yield Case(
        "no Lease",
        deleted("Lease", SYSTEM, "fairlead-operator"),
        "operator",
        BAD,
        "nobody writes",
        "logs deployment/fairlead-operator",
    )
    stale = {"spec": {"renewTime": "2020-01-01T00:00:00.000000Z"}}
    yield Case(
        "stale Lease", patched("Lease", SYSTEM, "fairlead-operator", stale), "operator", BAD, "has not renewed", "logs"
    )
    free = {"spec": {"holderIdentity": ""}}
    yield Case(
        "free Lease", patched("Lease", SYSTEM, "fairlead-operator", free), "operator", BAD, "held by nobody", "logs"
    )
    yield Case(
        "stranger leads", deleted("Pod", SYSTEM, "fairlead-operator-1"), "operator", DOUBT, "is no pod of", "logs"
    )


def kserve_cases() -> Iterator[Case]:
    for name, words in (
        ("inferenceservices", "not installed"),
        ("trainedmodels", "ends two minutes after"),
        ("clusterstoragecontainers", "cannot be fetched"),
    ):
        yield Case(name, deleted(CRD_KIND, "", f"{name}.serving.kserve.io"), "KServe", BAD, words, "install KServe")
    yield Case(
        "KServe down",
        status("Deployment", "kserve", "kserve-controller-manager", {"availableReplicas": 0}),
        "KServe",
        BAD,
        "no pod is available",
        "describe deployment",
    )
    yield Case(
        "KServe's endpoints",
        patched("EndpointSlice", "kserve", "kserve-webhook", {"endpoints": []}),
        "KServe",
        BAD,
        "has no ready endpoint",
        "get pods",
    )
    yield Case(
        "no webhooks",
        deleted("MutatingWebhookConfiguration", "", "kserve"),
        "KServe",
        BAD,
        "start without their model",
        "reinstall",
    )
    yield Case(
        "no settings",
        deleted("ConfigMap", "kserve", "inferenceservice-config"),
        "KServe",
        BAD,
        "does not start without it",
        "install KServe",
    )
    for name, level in (("inferenceService", BAD), ("security", DOUBT), ("agent", BAD), ("deploy", BAD)):
        yield Case(
            f"settings without {name}",
            settings(name, None),
            "KServe",
            level,
            f"key {name}: is missing",
            "edit configmap",
        )
    yield Case(
        "settings not JSON", settings("batcher", "{"), "KServe", BAD, "key batcher: is no JSON object", "edit configmap"
    )
    ingress = {**KSERVE_SETTINGS["ingress"], "disableIstioVirtualHost": False}
    yield Case(
        "KServe's routes",
        settings("ingress", ingress),
        "KServe",
        DOUBT,
        "disableIstioVirtualHost is not true",
        "edit configmap",
    )
    yield Case(
        "Knative",
        settings("deploy", {"defaultDeploymentMode": "Knative"}),
        "KServe",
        DOUBT,
        "defaultDeploymentMode is Knative",
        "edit configmap",
    )
    yield Case(
        "no quantities",
        settings("storageInitializer", {"memoryLimit": "1"}),
        "KServe",
        BAD,
        "lacks memoryRequest, cpuRequest",
        "edit configmap",
    )


def istio_cases() -> Iterator[Case]:
    yield Case(
        "Istio's CRDs",
        deleted(CRD_KIND, "", "envoyfilters.networking.istio.io"),
        "Istio",
        BAD,
        "envoyfilters.networking.istio.io not installed",
        "install Istio 1.28",
    )
    yield Case(
        "Istio's tokens",
        deleted(CRD_KIND, "", "requestauthentications.security.istio.io"),
        "Istio",
        DOUBT,
        "no units from tokens",
        "install Istio",
    )
    before = {"spec": {"template": {"spec": {"containers": [{"name": "istiod", "image": "istio/pilot:1.27.3"}]}}}}
    yield Case(
        "old Istio",
        patched("Deployment", "istio-system", "istiod", before),
        "Istio",
        BAD,
        "1.27.3: splits would not be sticky",
        "upgrade Istio",
    )
    yield Case(
        "istiod down",
        status("Deployment", "istio-system", "istiod", {}),
        "Istio",
        BAD,
        "0 available",
        "logs deployment/istiod",
    )
    yield Case(
        "istiod's endpoints",
        patched("EndpointSlice", "istio-system", "istiod", {"endpoints": []}),
        "Istio",
        BAD,
        "routes cannot be written",
        "get pods",
    )
    yield Case(
        "no gateway",
        deleted("Gateway", "istio-ingress", "public"),
        "gateways",
        BAD,
        "is not there (asked for by flights/arrival-delay)",
        "routing.gateways",
    )
    nobody = {"spec": {"selector": {"istio": "nobody"}}}
    yield Case(
        "selector",
        patched("Gateway", "istio-ingress", "public", nobody),
        "gateways",
        BAD,
        "selector istio=nobody matches no pod",
        "spec.selector",
    )
    unready = {"conditions": [{"type": "Ready", "status": "False"}]}
    yield Case(
        "gateway's pods",
        status("Pod", "istio-ingress", "gateway-1", unready),
        "gateways",
        BAD,
        "none is ready",
        "describe pods",
    )
    yield Case(
        "no Service",
        deleted("Service", "istio-ingress", "gateway"),
        "gateways",
        BAD,
        "no Service stands before",
        "get services",
    )
    yield Case(
        "ports",
        patched("Service", "istio-ingress", "gateway", {"spec": {"ports": [{"port": 81}]}}),
        "gateways",
        BAD,
        "has none of the Gateway's ports (80)",
        "edit service",
    )
    yield Case(
        "endpoints",
        patched("EndpointSlice", "istio-ingress", "gateway", {"endpoints": []}),
        "gateways",
        BAD,
        "has no ready endpoint",
        "get endpointslices",
    )
    yield Case(
        "repeated headers",
        patched("ConfigMap", "istio-system", "istio", {"data": {"mesh": "{}"}}),
        "gateways",
        DOUBT,
        "is not false",
        "proxy.istio.io/config",
    )


def namespace_cases() -> Iterator[Case]:
    yield Case(
        "no metrics",
        deleted("APIService", "", "v1beta1.metrics.k8s.io"),
        "autoscaling",
        DOUBT,
        "is not served",
        "install metrics-server",
    )
    yield Case(
        "control-plane",
        patched("Namespace", "", NAMESPACE, {"metadata": {"labels": {"control-plane": "x"}}}),
        "namespaces",
        BAD,
        "KServe leaves its pods alone",
        "control-plane-",
    )
    quota = named("ResourceQuota", "small", NAMESPACE, status={"hard": {"pods": "2"}, "used": {"pods": "2"}})
    yield Case("quota", created(quota), "namespaces", DOUBT, "pods used up in flights/small", "describe quota")


def feature_cases() -> Iterator[Case]:
    yield Case(
        "no ConfigMap",
        deleted(*FEAST),
        "feature stores",
        BAD,
        "ConfigMap feast-client is not in flights",
        "create configmap feast-client",
    )
    yield Case(
        "no key",
        patched(*FEAST, {"data": {"feature_store.yaml": None}}),
        "feature stores",
        BAD,
        "has no key feature_store.yaml",
        "edit configmap",
    )
    yield Case(
        "no YAML",
        patched(*FEAST, {"data": {"feature_store.yaml": "a: ["}}),
        "feature stores",
        BAD,
        "is not YAML",
        "edit configmap",
    )
    yield Case(
        "registry",
        patched(*FEAST, {"binaryData": {"registry.db": None}}),
        "feature stores",
        BAD,
        "registry is the file registry.db",
        "edit configmap",
    )
    sqlite = "project: a\nregistry: {path: s3://a/b}\nonline_store: {type: sqlite}\n"
    yield Case(
        "SQLite",
        patched(*FEAST, {"data": {"feature_store.yaml": sqlite}}),
        "feature stores",
        BAD,
        "SQLite, which pods cannot share",
        "edit configmap",
    )
    yield Case(
        "no Secret",
        deleted("Secret", NAMESPACE, "feast-redis"),
        "feature stores",
        BAD,
        "Secret feast-redis of feature_store.yaml is not in",
        "create secret generic feast-redis",
    )
    yield Case(
        "Secret's keys",
        patched("Secret", NAMESPACE, "feast-redis", {"data": {"FAIRLEAD_REDIS": None}}),
        "feature stores",
        BAD,
        "wants FAIRLEAD_REDIS",
        "edit secret",
    )


def pod_cases() -> Iterator[Case]:
    place = ("Pod", NAMESPACE, "r1-predictor-1")
    yield Case(
        "image",
        status(*place, waiting("ImagePullBackOff", "not found")),
        "pods",
        BAD,
        "image fairlead.local/server:9.9.9 cannot be pulled (ImagePullBackOff): not found",
        "describe pod",
    )
    yield Case(
        "configuration",
        status(*place, waiting("CreateContainerConfigError", "no secret")),
        "pods",
        BAD,
        "CreateContainerConfigError: no secret",
        "describe pod",
    )
    ended: dict[str, Any] = {
        "lastState": {"terminated": {"exitCode": 3, "message": "digest differs\n"}},
        "restartCount": 4,
    }
    yield Case(
        "crash",
        status(*place, waiting("CrashLoopBackOff", **ended)),
        "pods",
        BAD,
        "ended 4 times, code 3: digest differs",
        "logs r1-predictor-1 -c kserve-container --previous",
    )
    homeless = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]}
    yield Case("node", status(*place, homeless), "pods", BAD, "finds no node: 0/1 nodes", "resources.requests")
    failed = {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]}
    maker = named("Deployment", "r2", NAMESPACE, api="apps/v1", labels=OURS, spec={}, status=failed)
    yield Case("cannot be made", created(maker), "pods", BAD, "pods cannot be made: exceeded quota", "get events")
    yield Case("unready", status(*place, {"phase": "Running"}), "pods", DOUBT, "runs and is not ready", "logs")


def condition_cases() -> Iterator[Case]:
    refused = condition(VariantsReady=("False", "ModelRefused", "digest differs"), Ready=("False", "ModelRefused", "x"))
    yield Case(
        "condition",
        refused,
        "ModelDeployments",
        BAD,
        "VariantsReady is False, ModelRefused: digest differs",
        "docs/runbooks/conditions.md#modelrefused",
    )
    summed = condition(Ready=("False", "RefusedByApi", "only this one"))
    yield Case("sum alone", summed, "ModelDeployments", BAD, "Ready is False, RefusedByApi: only this", "#refusedbyapi")
    back = condition(Progressing=("False", "RolledBack", "given up"))
    yield Case("rolled back", back, "ModelDeployments", DOUBT, "RolledBack: given up", "#rolledback")
    unknown = condition(FeaturesReady=("Unknown", "FeaturesUnknown", "nobody told"))
    yield Case("unknown", unknown, "ModelDeployments", DOUBT, "FeaturesReady is Unknown", "#featuresunknown")
    starting = condition(RoutingReady=("False", "Starting", "wait"))
    yield Case("starting", starting, "ModelDeployments", DOUBT, "Starting: wait", "#starting")
    late = condition(Progressing=("False", "ProgressDeadlineExceeded", "too late"))
    yield Case("late", late, "ModelDeployments", BAD, "too late", "#progressdeadlineexceeded")
    yield Case(
        "unseen",
        patched("ModelDeployment", NAMESPACE, NAME, {"spec": {"paused": True}}),
        "ModelDeployments",
        DOUBT,
        "has not seen its last 1 edits",
        "describe mdep",
    )
    yield Case(
        "no status",
        created(model_deployment("fresh", NAMESPACE)),
        "ModelDeployments",
        BAD,
        "has no status",
        "see `operator`",
    )


CASES = [
    *operator_cases(),
    *kserve_cases(),
    *istio_cases(),
    *namespace_cases(),
    *feature_cases(),
    *pod_cases(),
    *condition_cases(),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_each_broken_thing_is_named_with_its_fix(case: Case, tmp_path: Path) -> None:
    async with doctor_cluster() as server:
        case.act(server)
        found = of_level(await examined(server, tmp_path, area=case.area), case.level)
        fitting = [one for _, one in found if case.seen in one.seen]
        assert fitting, found
        assert all(case.fix in one.fix for one in fitting), fitting


async def test_what_may_not_be_read_is_doubted_and_hides_nothing_else(tmp_path: Path) -> None:
    async with doctor_cluster() as server:
        server.faults.inject(Refuse(403, "Forbidden", "no"), calls("get", "secrets"), times=99)
        server.faults.inject(Refuse(403, "Forbidden", "no"), calls("get", "leases.coordination.k8s.io"), times=99)
        found = await examined(server, tmp_path)
        assert of_level(found, Level.BAD) == []
        doubted = {(area, one.seen) for area, one in of_level(found, Level.DOUBT)}
        assert ("operator", "you may not get leases.coordination.k8s.io") in doubted
        assert ("feature stores", "you may not get secrets") in doubted


async def test_reviews_that_are_refused_are_doubted(tmp_path: Path) -> None:
    async with doctor_cluster() as server:
        refuse = Refuse(403, "Forbidden", "no")
        server.faults.inject(refuse, calls("create", "subjectaccessreviews.authorization.k8s.io"), times=999)
        found = await examined(server, tmp_path, area="permissions")
        [(_, one)] = of_level(found, Level.DOUBT)
        assert "you may not ask what fairlead-system/fairlead-operator may do" in one.seen


async def test_an_api_that_is_not_there_is_the_only_finding(tmp_path: Path) -> None:
    async with doctor_cluster() as server:
        file = server.kubeconfig(tmp_path)
    code, said = await doctor(tmp_path, "--kubeconfig", str(file))
    assert (code, said.count("✗ server: "), said.splitlines()[-1].split(":")[0]) == (1, 1, "1 looked at"), said


@dataclass(frozen=True, slots=True)
class Crashing:
    """A check with a bug."""

    area: str = "crashing"

    async def gather(self, reader: Reader, scope: Scope) -> int:
        del reader, scope
        return 0

    def judge(self, facts: int) -> Iterator[Finding]:
        yield good("one", f"{1 / facts}")


@dataclass(frozen=True, slots=True)
class Hanging:
    """A check that waits for ever."""

    area: str = "hanging"

    async def gather(self, reader: Reader, scope: Scope) -> int:
        del reader, scope
        await asyncio.Event().wait()
        return 0

    def judge(self, facts: int) -> Iterator[Finding]:
        yield good("never", str(facts))


async def test_a_check_that_crashes_and_one_that_hangs_end_no_other(tmp_path: Path) -> None:
    async with doctor_cluster() as server, client_of(server, tmp_path) as client:
        checks: list[Check[Any]] = [ApiServer(), Crashing(), Hanging(), ApiServer()]
        found = [one async for one in examine(checks, Reader(client), Scope(), deadline_s=0.5)]
    assert [one.area for one in found] == ["Kubernetes API", "crashing", "hanging", "Kubernetes API"]
    levels = [[finding.level for finding in one.findings] for one in found]
    assert levels == [[Level.GOOD], [Level.DOUBT], [Level.BAD], [Level.GOOD]]
    assert "ZeroDivisionError" in found[1].findings[0].seen


async def test_a_call_that_hangs_is_given_up(tmp_path: Path) -> None:
    async with doctor_cluster() as server, client_of(server, tmp_path) as client:
        server.faults.inject(Hang(), calls("get", "leases.coordination.k8s.io"), times=99)
        reader = Reader(client, deadline_s=0.2)
        found = [one async for one in examine(checks_of("operator"), reader, Scope(NAMESPACE))]
    assert "no answer in 0.2 s" in str(found)


async def test_the_command_answers_in_text_and_json_and_by_its_exit_code(tmp_path: Path) -> None:
    async with doctor_cluster() as server:
        file = server.kubeconfig(tmp_path)
        code, said = await doctor(tmp_path, "--kubeconfig", str(file), "-n", NAMESPACE)
        assert (code, said.splitlines()[0]) == (0, "Kubernetes API"), said
        assert said.splitlines()[-1].endswith("nothing stands in the way")
        server.delete("Secret", NAMESPACE, "feast-redis")
        code, said = await doctor(tmp_path, "--kubeconfig", str(file), "-n", NAMESPACE, NAME, "-o", "json")
        assert code == 1
        found = json.loads(said)
        assert found["summary"]["bad"] == 1
        [one] = [one for one in found["findings"] if one["level"] == "bad"]
        assert one["fix"].startswith("kubectl -n flights create secret generic feast-redis")


def test_the_newest_kubernetes_that_is_tried_is_that_of_the_test_cluster() -> None:
    build = (Path(__file__).parents[3] / "tools/cluster/build.py").read_text()
    found = re.search(r'^KUBERNETES_VERSION = "v(\d+)\.(\d+)\.', build, re.MULTILINE)
    assert found
    assert tuple(map(int, found.groups())) == TRIED


async def test_wrong_use_ends_with_2(tmp_path: Path) -> None:
    for arguments in (["name"], ["--local", "-n", "a"], ["--output", "xml"]):
        code, said = await doctor(tmp_path, *arguments)
        assert code == 2, said


async def doctor(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the command; return its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fairlead.cli.main", "doctor", *arguments),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 100)
    assert process.returncode is not None
    return process.returncode, said.decode()


def _restricted() -> dict[str, str]:
    return {"pod-security.kubernetes.io/enforce": "restricted"}
