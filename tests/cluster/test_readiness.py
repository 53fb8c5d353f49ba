"""Readiness and failure on real pods: what scaling, deletions, evictions, quotas and broken revisions do to weights."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from fairlead_operator.platforms.kubernetes.kinds import DEPLOYMENT, POD, SECRET, Kind
from support.cluster import wait_for
from support.cluster_deployments import Deployed
from support.cluster_settled import CONTROL, GRACE_S, SHARE, TREATMENT, Settled, steady
from support.models import contract_of, write_model

QUOTA = Kind("", "v1", "ResourceQuota", "resourcequotas")
SOON_S = 10.0
"""What was seen in a pod is told so soon, on a busy machine."""
FAILURES = {
    "digest": "ModelUnavailable",
    "bare": "ModelRefused",
    "huge": "PodsBlocked",
    "crashing": "Crashed",
    "imageless": "PodsBlocked",
}
"""Why each of the broken ones fails in the end; before that a pod may wait a moment for room on the node."""


def test_scaling_up_a_deleted_and_an_evicted_pod_move_nobody_and_lose_no_request(settled: Settled) -> None:
    with settled.watch_routes() as watch, steady(settled.deployed) as load:
        written = len(watch.changes)
        _scale(settled, 2)
        before = _wait_pods(settled, 2)
        first, second = before.values()
        settled.delete_pod(first["metadata"]["name"])
        _wait_pods(settled, 2, without=first["metadata"]["uid"])
        _evict(settled, second["metadata"]["name"])
        _wait_pods(settled, 2, without=second["metadata"]["uid"])
        _scale(settled, 1)
        _wait_pods(settled, 1)
    assert load.lost == []
    assert {sample.variant for sample in load.samples} == {CONTROL, TREATMENT}
    assert watch.problems == []
    assert watch.changes[written:] == []


def test_a_treatment_without_pods_gives_its_weight_to_control_and_has_it_back_when_complete(settled: Settled) -> None:
    (pod,) = settled.ready_pods(TREATMENT).values()
    with steady(settled.deployed, sorted(settled.units_of(CONTROL))) as load:
        settled.stage.api.apply(QUOTA, _quota(settled, pods="0"))
        try:
            settled.delete_pod(pod["metadata"]["name"])
            gone = _wait_unavailable(settled)
            settled.deployed.wait_weights(**{TREATMENT: 0}, timeout_s=GRACE_S + SOON_S)
            lasted_s = time.monotonic() - gone
            withdrawn = settled.deployed.wait_condition("RoutingReady", "False", reason="WeightWithdrawn")
            blocked = settled.deployed.wait_condition("VariantsReady", "False", reason="PodsBlocked")
        finally:
            settled.stage.api.delete(QUOTA, settled.namespace, "none")
        settled.hurry(TREATMENT)
        settled.deployed.wait_weights(**{TREATMENT: SHARE})
        assert settled.ready_pods(TREATMENT)
        settled.deployed.wait_condition("Ready")
    assert load.lost == []
    assert lasted_s >= GRACE_S - 1.0
    assert withdrawn["message"].startswith(f"{TREATMENT} has 0 of {SHARE} per cent until it is ready")
    assert "exceeded quota: none" in blocked["message"]


@dataclass(frozen=True, slots=True)
class Troubled:
    """Deployments with failures of all kinds beside a control that answers, and when each failure was first told."""

    mixed: Deployed
    crashing: Deployed
    imageless: Deployed
    failures: dict[str, dict[str, str]]
    """``lastFailure`` by variant, or by deployment."""
    late_s: dict[str, float]
    """From when the pod's container ended to when it was told; of those that ended."""


@pytest.fixture(scope="module")
def troubled(shared: Settled) -> Iterator[Troubled]:
    shared.come_back()
    stage = shared.stage
    digest = write_model(stage.files / "bare.onnx", contract_of(stage.repo.describe()), with_contract=False)
    bare = {"uri": f"{stage.models_url}/bare.onnx", "digest": digest}
    wrong = {**stage.model("forest"), "digest": stage.digests["next"]}
    huge = {"requests": {"cpu": "1000", "memory": "64Mi"}, "limits": {"memory": "64Mi"}}
    treatments = [
        {**stage.variant("digest", "Treatment", model="forest"), "model": wrong},
        {**stage.variant("bare", "Treatment", model="forest"), "model": bare},
        {**stage.variant("huge", "Treatment", model="last"), "resources": huge},
    ]
    weights = {one["name"]: 10 for one in treatments}
    rollout = {"strategy": "Manual", "weights": weights, "progressDeadline": "20s"}
    mixed = stage.apply(stage.manifest("mixed", [stage.variant(CONTROL), *treatments], rollout=rollout))
    # An interpreter that cannot start: it crashes at once and costs nothing.
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "crash", "namespace": stage.namespace}}
    stage.api.apply(SECRET, {**secret, "stringData": {"PYTHONHOME": "/nowhere"}})
    store = {"configMapRef": {"name": "feast-client"}, "secretRef": {"name": "crash"}}
    crashing = stage.apply(stage.manifest("crashing", [stage.variant(CONTROL)], featureStore=store))
    imageless = stage.apply(stage.manifest("imageless", [stage.variant(CONTROL)], serving={"release": "9.9.9"}))
    found = Troubled(mixed, crashing, imageless, {}, {})
    wait_for(lambda: _note(found), timeout_s=60, otherwise=lambda: _told(found))
    yield found
    for deployed in (mixed, crashing, imageless):
        deployed.delete()


def test_a_model_that_is_not_its_digest_s_is_refused_when_fetched(troubled: Troubled) -> None:
    failure = troubled.failures["digest"]
    assert failure["reason"] == "ModelUnavailable"
    assert "could not be fetched (exit code 3)" in failure["message"]
    assert "its digest is sha256:" in failure["message"]


def test_a_server_that_refuses_its_model_says_why(troubled: Troubled) -> None:
    failure = troubled.failures["bare"]
    assert failure["reason"] == "ModelRefused"
    assert "no contract in the model's metadata" in failure["message"]


def test_a_pod_that_fits_on_no_node_says_so(troubled: Troubled) -> None:
    failure = troubled.failures["huge"]
    assert failure["reason"] == "PodsBlocked"
    assert "no node has room" in failure["message"]
    assert "Insufficient cpu" in failure["message"]


def test_an_image_that_is_not_there_is_named(troubled: Troubled) -> None:
    failure = troubled.failures["imageless"]
    assert failure["reason"] == "PodsBlocked"
    assert "ImagePull" in failure["message"]
    assert "server:9.9.9" in failure["message"]


def test_a_server_that_crashes_shows_its_exit_code_and_the_end_of_its_log(troubled: Troubled) -> None:
    failure = troubled.failures["crashing"]
    assert failure["reason"] == "Crashed"
    assert "ended with 1" in failure["message"]
    assert "Fatal Python error" in failure["message"]


def test_failures_are_told_within_seconds(troubled: Troubled) -> None:
    assert {"digest", "bare", "crashing"} <= troubled.late_s.keys()
    assert max(troubled.late_s.values()) < SOON_S, troubled.late_s


def test_failed_treatments_never_harm_control_and_count_as_late(troubled: Troubled) -> None:
    mixed = troubled.mixed
    mixed.wait(lambda: mixed.weights_bp().get(CONTROL) == 10_000)
    late = mixed.wait_condition("Progressing", "False", reason="ProgressDeadlineExceeded")
    with steady(mixed) as load:
        time.sleep(2)
    assert load.lost == []
    assert {sample.variant for sample in load.samples} == {CONTROL}
    assert "not ready in 20s" in late["message"]
    assert mixed.condition("Servable")["status"] == "True"
    assert mixed.weights_bp() == {CONTROL: 10_000, **dict.fromkeys(("digest", "bare", "huge"), 0)}


def test_one_line_of_kubectl_tells_the_story(troubled: Troubled, shared: Settled) -> None:
    listed = shared.cluster.kubectl("get", "mdep", f"--namespace={shared.namespace}")
    told = {line.split()[0]: line.split()[1:3] for line in listed.splitlines()[1:]}
    assert told["delay"] == ["True", "AsSpecified"]
    assert told["crashing"] == ["False", "Crashed"]
    assert told["imageless"] == ["False", "PodsBlocked"]
    assert told["mixed"][0] == "False"
    assert troubled.mixed.name in told


def _note(found: Troubled) -> bool:
    """Note the failures that are told now and are those in the end; return whether all are."""
    for deployed in (found.mixed, found.crashing, found.imageless):
        for one in deployed.status().get("variants", []):
            name = one["name"] if deployed is found.mixed else deployed.name
            if name == CONTROL or name in found.failures or one.get("lastFailure", {}).get("reason") != FAILURES[name]:
                continue
            found.failures[name] = one["lastFailure"]
            ended = [at for pod in deployed.pods().values() for at in _ends(pod, one["revision"])]
            if ended:
                found.late_s[name] = time.time() - min(ended)
    return found.failures.keys() == FAILURES.keys()


def _told(found: Troubled) -> str:
    """Return what is told of each, where that is not what was waited for."""
    stories = (deployed.story() for deployed in (found.mixed, found.crashing, found.imageless))
    return "\n".join((str(found.failures), *stories))


def _ends(pod: dict[str, Any], revision: str) -> Iterator[float]:
    """Yield when containers of a revision's pod ended badly, Unix time."""
    if revision not in pod["metadata"]["name"]:
        return
    status = pod["status"]
    for one in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        for state in (one.get("state", {}), one.get("lastState", {})):
            if state.get("terminated", {}).get("exitCode"):
                yield datetime.fromisoformat(state["terminated"]["finishedAt"]).timestamp()


def _scale(settled: Settled, replicas: int) -> None:
    name = f"{settled.revision(TREATMENT)}-predictor"
    settled.cluster.kubectl("scale", f"deployment/{name}", f"--replicas={replicas}", f"--namespace={settled.namespace}")


def _evict(settled: Settled, name: str) -> None:
    metadata = {"name": name, "namespace": settled.namespace}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    path = POD.path(settled.namespace, name, "eviction")
    settled.cluster.kubectl("create", f"--raw={path}", "--filename=-", given=json.dumps(eviction))


def _wait_pods(settled: Settled, count: int, *, without: str = "") -> dict[str, dict[str, Any]]:
    """Return the treatment's ready pods once there are so many, and no others."""

    def there() -> bool:
        ready = settled.ready_pods(TREATMENT)
        return len(ready) == count and without not in ready and ready.keys() == settled.pods(TREATMENT).keys()

    settled.deployed.wait(there, timeout_s=90)
    return settled.ready_pods(TREATMENT)


def _wait_unavailable(settled: Settled) -> float:
    """Return when the treatment's Deployment had no available replica, by the monotonic clock."""
    name = f"{settled.revision(TREATMENT)}-predictor"

    def gone() -> bool:
        status = settled.stage.api.get(DEPLOYMENT, settled.namespace, name)["status"]
        return not status.get("availableReplicas")

    wait_for(gone, timeout_s=20)
    return time.monotonic()


def _quota(settled: Settled, **hard: str) -> dict[str, Any]:
    metadata = {"name": "none", "namespace": settled.namespace}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}}
