"""Owned objects on the real API: no fight with KServe's webhooks, hand-made changes undone, nothing of others taken."""

from __future__ import annotations

import functools
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fairlead_operator.platforms.kubernetes.kinds import (
    AUTHORIZATION_POLICY,
    CONFIG_MAP,
    DEPLOYMENT_LABEL,
    DEPLOYMENT_NAMESPACE_LABEL,
    DESTINATION_RULE,
    ENVOY_FILTER,
    INFERENCE_SERVICE,
    MANAGED_BY,
    MODEL_DEPLOYMENT,
    NAMESPACE,
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    SECRET,
    SERVING_RUNTIME,
    VIRTUAL_SERVICE,
    Kind,
)
from support.cluster import KubectlError, wait_for
from support.cluster_api import Resource
from support.cluster_deployments import restricted_namespace
from support.cluster_operator import ClusterOperator, operator_of
from support.cluster_settled import CONTROL, SHARE, TREATMENT, Settled, steady

OWNED = (
    VIRTUAL_SERVICE,
    ENVOY_FILTER,
    DESTINATION_RULE,
    INFERENCE_SERVICE,
    SERVING_RUNTIME,
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    SECRET,
    CONFIG_MAP,
    AUTHORIZATION_POLICY,
)
RECONCILES = 20
HEALED_S = 20.0
"""A resync after the change at the latest; most kinds are watched and healed at once."""
READS = {"get", "list", "watch"}


def owned(settled: Settled) -> dict[tuple[str, str], Resource]:
    """Return everything that the operator has made for the deployment, by kind and name."""
    found = {}
    for kind in OWNED:
        for live in settled.stage.api.items(kind, None, **{MANAGED_BY.replace("/", "__"): "fairlead"}):
            labels = live["metadata"]["labels"]
            namespace = labels.get(DEPLOYMENT_NAMESPACE_LABEL, live["metadata"]["namespace"])
            if namespace == settled.namespace and labels.get(DEPLOYMENT_LABEL, "delay") == "delay":
                found[str(kind), live["metadata"]["name"]] = live
    return found


def versions(objects: Mapping[tuple[str, str], Resource]) -> dict[tuple[str, str], str]:
    """Return the resourceVersion of each."""
    return {key: live["metadata"]["resourceVersion"] for key, live in objects.items()}


def writes(operator: ClusterOperator) -> float:
    """Return how many writes its present life has sent, but for its Lease and Events."""
    text = operator.ask("/metrics")[1]
    lines = re.findall(r"^fairlead_api_calls_total{(.*)} (\S+)$", text, re.MULTILINE)
    told = [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)) for labels, value in lines]
    return sum(n for labels, n in told if labels["verb"] not in READS and labels["kind"] not in {"leases", "events"})


def test_twenty_reconciles_and_a_restart_of_an_unchanged_world_write_nothing(shared: Settled) -> None:
    shared.come_back()  # without the FeatureStore's story: all that is written is counted
    before, pods, sent = owned(shared), set(shared.deployed.pods()), writes(shared.operator)
    kinds = {kind for kind, _ in before}
    assert kinds == {str(kind) for kind in OWNED} - {str(AUTHORIZATION_POLICY)}
    for number in range(RECONCILES):
        done = shared.operator.metric("fairlead_reconciles_total")
        shared.deployed.annotate(touched=str(number))
        wait_for(functools.partial(_has_reconciled, shared.operator, done), timeout_s=10)
    assert writes(shared.operator) == sent
    shared.operator.stop()
    shared.operator.start()
    wait_for(lambda: shared.operator.metric("fairlead_resyncs_total") >= 1)
    wait_for(lambda: shared.operator.metric("fairlead_reconciles_total") >= 2)
    assert writes(shared.operator) == 0, shared.operator.story()
    assert versions(owned(shared)) == versions(before)
    assert set(shared.deployed.pods()) == pods
    assert {live["metadata"]["generation"] for (kind, _), live in before.items() if "inference" in kind} == {1}


EDITS: dict[Kind, Callable[[Resource], dict[str, Any]]] = {
    VIRTUAL_SERVICE: lambda live: {"spec": {"http": [{**one, "timeout": "29s"} for one in live["spec"]["http"]]}},
    ENVOY_FILTER: lambda live: {"spec": {"configPatches": live["spec"]["configPatches"][:1]}},
    DESTINATION_RULE: lambda _: {"spec": {"host": "elsewhere.example.org"}},
    INFERENCE_SERVICE: lambda _: {"spec": {"predictor": {"maxReplicas": 9}}},
    SERVING_RUNTIME: lambda _: {"spec": {"protocolVersions": ["v1"]}},
    NETWORK_POLICY: lambda _: {"spec": {"ingress": []}},
    POD_DISRUPTION_BUDGET: lambda _: {"spec": {"maxUnavailable": 0}},
    SECRET: lambda _: {"data": {"route-keys.json": "e30="}},
    CONFIG_MAP: lambda _: {"data": {"rollout.json": "{}"}},
}


def test_what_somebody_edits_is_restored_and_what_they_add_stays(settled: Settled) -> None:
    before = owned(settled)
    pods = set(settled.deployed.pods())
    with steady(settled.deployed) as load:
        for (_, name), live in before.items():
            kind = _kind_of(live)
            foreign = {"metadata": {"labels": {"team": "taxis"}, "annotations": {"example.org/note": "ours"}}}
            if kind in {INFERENCE_SERVICE, SERVING_RUNTIME}:  # KServe would copy them to the pods
                foreign = {}
            settled.stage.api.patch(kind, live["metadata"]["namespace"], name, {**EDITS[kind](live), **foreign})
        wait_for(
            lambda: _same(owned(settled), before),
            timeout_s=HEALED_S,
            otherwise=lambda: _differences(owned(settled), before),
        )
        settled.deployed.wait_condition("Ready")
    after = owned(settled)
    for (kind_name, name), live in after.items():
        if not kind_name.startswith(("inferenceservices", "servingruntimes")):
            assert live["metadata"]["labels"]["team"] == "taxis", (kind_name, name)
            assert live["metadata"]["annotations"]["example.org/note"] == "ours", (kind_name, name)
    assert set(settled.deployed.pods()) == pods
    assert [sample for sample in load.lost if sample.variant] == []


def test_weights_and_faults_that_somebody_writes_into_a_route_are_taken_out_again(settled: Settled) -> None:
    # Without load: units that came elsewhere meanwhile would rightly count against the experiment.
    api, abort = settled.stage.api, {"abort": {"httpStatus": 418, "percentage": {"value": 100}}}
    live = api.get(VIRTUAL_SERVICE, settled.namespace, "delay")
    for change in (_all_to_last, lambda one: {**one, "fault": abort} if "route" in one else one):
        changed = {"spec": {"http": [change(one) for one in live["spec"]["http"]]}}
        assert api.patch(VIRTUAL_SERVICE, settled.namespace, "delay", changed)["spec"] != live["spec"]
        settled.deployed.wait(
            lambda: api.get(VIRTUAL_SERVICE, settled.namespace, "delay")["spec"] == live["spec"], HEALED_S
        )


def test_what_somebody_deletes_is_made_again(settled: Settled) -> None:
    before = owned(settled)
    lost_at_once = [
        (key, live)
        for key, live in before.items()
        if _kind_of(live) != INFERENCE_SERVICE or settled.revision(TREATMENT) == key[1]
    ]
    for (_, name), live in lost_at_once:
        settled.stage.api.delete(_kind_of(live), live["metadata"]["namespace"], name)
    settled.deployed.wait(lambda: owned(settled).keys() == before.keys())
    settled.deployed.wait_condition("Ready")
    settled.deployed.wait_weights(**{TREATMENT: SHARE})
    assert _same(owned(settled), before), _differences(owned(settled), before)


@pytest.fixture
def foreign_service(settled: Settled) -> Iterator[Resource]:
    """An InferenceService of somebody else, with the very name that a deployment ``theirs`` needs; it has no pods."""
    name = settled.revision(CONTROL).replace("delay-", "theirs-", 1)
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "pvc://nothing/at/all"}
    metadata = {
        "name": name,
        "namespace": settled.namespace,
        "annotations": {"serving.kserve.io/stop": "true", "serving.kserve.io/deploymentMode": "Standard"},
    }
    manifest = {
        "apiVersion": INFERENCE_SERVICE.api_version,
        "kind": INFERENCE_SERVICE.kind,
        "metadata": metadata,
        "spec": {"predictor": {"model": model}},
    }
    yield settled.stage.api.apply(INFERENCE_SERVICE, manifest)
    settled.stage.api.delete(INFERENCE_SERVICE, settled.namespace, name)


def test_objects_of_others_are_never_adopted_and_nothing_of_ours_stays(
    settled: Settled, foreign_service: Resource
) -> None:
    stage, name = settled.stage, foreign_service["metadata"]["name"]
    route = {
        "apiVersion": VIRTUAL_SERVICE.api_version,
        "kind": VIRTUAL_SERVICE.kind,
        "metadata": {"name": "theirs", "namespace": settled.namespace},
        "spec": {"hosts": ["theirs.example.com"], "http": [{"directResponse": {"status": 204}}]},
    }
    theirs_before = stage.api.apply(VIRTUAL_SERVICE, route)
    theirs = stage.apply(stage.manifest("theirs", [stage.variant(CONTROL)]))
    told = theirs.wait_condition("VariantsReady", "False", reason="ForeignObject")
    assert f"inferenceservices.serving.kserve.io {settled.namespace}/{name}" in told["message"]
    assert stage.api.get(INFERENCE_SERVICE, settled.namespace, name)["spec"] == foreign_service["spec"]

    stage.api.delete(INFERENCE_SERVICE, settled.namespace, name)
    told = theirs.wait_condition("RoutingReady", "False", reason="ForeignObject")
    assert f"virtualservices.networking.istio.io {settled.namespace}/theirs" in told["message"]
    live = stage.api.get(VIRTUAL_SERVICE, settled.namespace, "theirs")
    assert live["metadata"]["resourceVersion"] == theirs_before["metadata"]["resourceVersion"]

    stage.api.delete(VIRTUAL_SERVICE, settled.namespace, "theirs")
    theirs.wait_condition("Ready")
    theirs.delete()
    theirs.wait(lambda: _left(settled, "theirs") == [], 30)


def test_without_its_operator_a_deployment_goes_once_its_finalizer_is_taken_away(settled: Settled) -> None:
    stage = settled.stage
    treatments = [stage.variant(CONTROL), stage.variant(TREATMENT, "Treatment")]
    rollout = {"strategy": "Manual", "weights": {TREATMENT: 10}}
    # Nothing to mount, so that its pods cost nothing; what matters here is the finalizer.
    store = {"configMapRef": {"name": "nowhere"}}
    stuck = stage.apply(stage.manifest("stuck", treatments, rollout=rollout, featureStore=store))
    stuck.wait(lambda: bool(stuck.resource()["metadata"].get("finalizers")))
    settled.operator.stop()
    stuck.delete()
    with pytest.raises(KubectlError, match="timed out"):
        settled.cluster.kubectl("wait", "--for=delete", "mdep/stuck", "--timeout=1s", f"--namespace={stage.namespace}")
    change = '{"metadata":{"finalizers":null}}'
    settled.cluster.kubectl(
        "patch", "mdep", "stuck", f"--namespace={stage.namespace}", "--type=merge", f"--patch={change}"
    )
    settled.cluster.kubectl("wait", "--for=delete", "mdep/stuck", "--timeout=10s", f"--namespace={stage.namespace}")
    settled.operator.start()
    wait_for(lambda: _left(settled, "stuck") == [], timeout_s=30)


@pytest.fixture
def elsewhere(settled: Settled, tmp_path: Path) -> Iterator[str]:
    """Another namespace with an operator of its own, and a deployment that splits and whose pods cannot start."""
    name = f"e{secrets.token_hex(3)}"
    settled.stage.api.apply(NAMESPACE, restricted_namespace(name))
    # Its Lease is where no namespace goes; else nobody could lead any more.
    lease = (f"--own-namespace={settled.namespace}", "--lease-name=elsewhere")
    with operator_of(settled.cluster, name, tmp_path, flags=lease):
        treatments = [settled.stage.variant(CONTROL), settled.stage.variant(TREATMENT, "Treatment")]
        manifest = settled.stage.manifest(
            "gone", treatments, rollout={"strategy": "Manual", "weights": {TREATMENT: 10}}
        )
        manifest["metadata"]["namespace"] = name
        settled.stage.api.apply(MODEL_DEPLOYMENT, manifest)
        yield name


def test_a_namespace_goes_with_its_deployments(settled: Settled, elsewhere: str) -> None:
    api = settled.stage.api
    wait_for(lambda: bool(api.get(MODEL_DEPLOYMENT, elsewhere, "gone")["metadata"].get("finalizers")))
    wait_for(lambda: bool(api.items(INFERENCE_SERVICE, elsewhere)))
    api.delete(NAMESPACE, None, elsewhere)
    # As long as it takes Kubernetes to take away an ordinary one with pods.
    wait_for(lambda: api.find(NAMESPACE, None, elsewhere) is None, timeout_s=40)
    selector = f"{DEPLOYMENT_NAMESPACE_LABEL}={elsewhere}"
    kinds = ",".join(str(kind) for kind in OWNED)
    left = settled.cluster.kubectl("get", kinds, "--all-namespaces", f"--selector={selector}", "--output=name")
    assert left == ""


def _has_reconciled(operator: ClusterOperator, done: float) -> bool:
    return operator.metric("fairlead_reconciles_total") > done


def _all_to_last(route: dict[str, Any]) -> dict[str, Any]:
    """Return an HTTP route whose last destination has all of the weight."""
    destinations = route.get("route", [])
    if len(destinations) < 2:
        return route
    *others, last = destinations
    total = sum(one["weight"] for one in destinations)
    return {**route, "route": [*({**one, "weight": 0} for one in others), {**last, "weight": total}]}


def _kind_of(live: Resource) -> Kind:
    return next(kind for kind in OWNED if kind.kind == live["kind"])


def _same(after: Mapping[tuple[str, str], Resource], before: Mapping[tuple[str, str], Resource]) -> bool:
    """Return whether what we own of objects is as it was; the record's bookkeeping may have gone on."""
    return after.keys() == before.keys() and all(
        _content(after[key]) == _content(before[key]) for key in before if not key[0].startswith("configmaps")
    )


def _content(live: Resource) -> Any:
    return live.get("spec"), live.get("data")


def _differences(after: Mapping[tuple[str, str], Resource], before: Mapping[tuple[str, str], Resource]) -> str:
    others = [
        f"{key}: {json.dumps(_content(after[key]))}\nnot {json.dumps(_content(before[key]))}"
        for key in before.keys() & after.keys()
        if _content(after[key]) != _content(before[key])
    ]
    return "\n".join([*others, f"gone {before.keys() - after.keys()}, new {after.keys() - before.keys()}"])


def _left(settled: Settled, name: str) -> list[str]:
    """Return everything with a deployment's label, anywhere."""
    selector = f"{DEPLOYMENT_LABEL}={name},{DEPLOYMENT_NAMESPACE_LABEL}={settled.namespace}"
    kinds = ",".join([*(str(kind) for kind in OWNED), "deployments.apps", "services", "pods", "hpa"])
    found = settled.cluster.kubectl("get", kinds, "--all-namespaces", f"--selector={selector}", "--output=name")
    return found.split()
