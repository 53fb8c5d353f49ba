"""What happens while parts of the platform are away: KServe's controller, istiod, model storage, the online store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fairlead.assignment import Layout, assign
from fairlead_operator.platforms.kubernetes.kinds import DEPLOYMENT, NAMESPACE, SECRET
from support.cluster import Cluster
from support.cluster_deployments import Deployed
from support.cluster_settled import CONTROL, SHARE, TREATMENT, Settled, steady
from support.gateway_load import Sample
from support.s3 import REGION, s3_server
from support.servers import RedisServer

TOOL = Path(__file__).parents[2] / "tools/cluster"
MANAGER, PILOT = "kserve-manager", "istiod"


@contextmanager
def stopped(cluster: Cluster, *programs: str) -> Iterator[None]:
    """Have programs of the cluster stopped for a while."""
    state = json.loads(Path(os.environ["FAIRLEAD_CLUSTER"]).read_text())["state"]
    tool = [sys.executable, str(TOOL), "--state", state]
    subprocess.run([*tool, "stop", *programs], check=True, capture_output=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run([*tool, "up"], check=True, capture_output=True, timeout=90)
    assert cluster.kubectl("get", "nodes")


def test_without_kserve_s_controller_traffic_goes_on_and_new_pods_are_missed(settled: Settled) -> None:
    (pod,) = settled.ready_pods(TREATMENT).values()
    with steady(settled.deployed) as load:
        with stopped(settled.cluster, MANAGER):
            time.sleep(2)
            assert load.lost == []
            assert settled.deployed.condition("Ready")["status"] == "True"
            settled.delete_pod(pod["metadata"]["name"])
            blocked = settled.deployed.wait_condition("VariantsReady", "False", reason="PodsBlocked", timeout_s=30)
            settled.deployed.wait_weights(**{TREATMENT: 0})
            served = load.sent_since(time.monotonic() - 0.5)
        settled.hurry(TREATMENT)
        settled.deployed.wait_weights(**{TREATMENT: SHARE})
        settled.deployed.wait_condition("Ready")
    assert "pods cannot be made" in blocked["message"]
    assert "webhook" in blocked["message"]
    assert {sample.variant for sample in served if not sample.problem} <= {CONTROL}
    assert {sample.unit for sample in load.lost} <= settled.units_of(TREATMENT)


def test_without_istiod_no_request_is_lost_and_a_weight_follows_once_it_is_back(settled: Settled) -> None:
    with steady(settled.deployed) as load:
        with stopped(settled.cluster, PILOT):
            time.sleep(5)
            written = settled.deployed.patch(rollout={"weights": {TREATMENT: SHARE + 10}})
        settled.deployed.wait_weights(**{TREATMENT: SHARE + 10})
        expected = settled.deployed.layout(CONTROL, **{TREATMENT: SHARE + 10})
        settled.deployed.wait(lambda: _follows(settled, load.samples, expected), 20)
    assert written["spec"]["rollout"]["weights"] == {TREATMENT: SHARE + 10}
    assert load.lost == []


def test_rendered_pods_are_admitted_as_restricted_without_a_warning(settled: Settled) -> None:
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    name = f"{settled.namespace}-warn"
    settled.stage.api.apply(
        NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    )
    try:
        for variant in (CONTROL, TREATMENT):
            made = settled.stage.api.get(DEPLOYMENT, settled.namespace, f"{settled.revision(variant)}-predictor")
            told = _warnings(settled.cluster, name, made["spec"]["template"]["spec"])
            assert told == ""
    finally:
        settled.stage.api.delete(NAMESPACE, None, name)


@dataclass(frozen=True, slots=True)
class Replaced:
    """A canary that has replaced its model, whose former revision is still warm."""

    deployed: Deployed
    former: dict[str, Any]
    """Variant as it was before."""
    former_revision: str
    online: RedisServer
    storage: ExitStack
    """Ends the model storage when it is closed."""


@pytest.fixture
def replaced(settled: Settled, tmp_path: Path) -> Iterator[Replaced]:
    stage, cluster = settled.stage, settled.cluster
    store = {"configMapRef": {"name": "own"}}
    rollout = {
        "strategy": "Canary",
        "steps": [{"weights": {CONTROL: 50}, "hold": "1s"}],
        "keepPrevious": "10m",
    }
    with RedisServer(tmp_path, host=cluster.node_ip) as online, ExitStack() as storage:
        s3 = storage.enter_context(s3_server(cluster.programs["versitygw"], tmp_path, cluster.node_ip))
        _own_store(settled, online)
        metadata = {"name": "s3-own", "namespace": settled.namespace}
        keys = {"AWS_ACCESS_KEY_ID": s3.key_id, "AWS_SECRET_ACCESS_KEY": s3.secret}
        stage.api.apply(SECRET, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys})

        def variant(model: str) -> dict[str, Any]:
            s3.put(f"{model}.onnx", (stage.files / f"{model}.onnx").read_bytes())
            storage = {"secretRef": {"name": "s3-own"}, "endpoint": s3.endpoint, "region": REGION}
            source = {"uri": f"s3://{s3.bucket}/{model}.onnx", "digest": stage.digests[model], "storage": storage}
            return {**stage.variant(CONTROL), "model": source}

        def manifest(of: dict[str, Any]) -> dict[str, Any]:
            return stage.manifest("replaced", [of], featureStore=store, rollout=rollout)

        deployed = stage.apply(manifest(variant("next")))
        deployed.wait_condition("Ready")
        former = deployed.status()["rollout"]["stable"]
        stage.apply(manifest(variant("last")))
        deployed.wait_condition("Progressing", "True", timeout_s=20)
        deployed.wait(lambda: deployed.status()["rollout"]["stable"] not in {None, former})
        deployed.wait_condition("Ready")
        yield Replaced(deployed, manifest(variant("next")), former, online, storage)
        deployed.delete()
        deployed.wait(lambda: not deployed.pods(), 60)


def test_a_rollback_to_the_last_good_revision_needs_no_storage_no_store_and_no_kserve(
    replaced: Replaced, settled: Settled
) -> None:
    deployed = replaced.deployed
    pods = set(deployed.pods())
    with stopped(settled.cluster, MANAGER), steady(deployed) as load:
        replaced.online.kill()
        replaced.storage.close()
        begun = time.monotonic()
        settled.stage.apply(replaced.former)
        deployed.wait(lambda: _serves(deployed, replaced.former_revision), 20)
        switched_s = time.monotonic() - begun
        time.sleep(1)
    assert set(deployed.pods()) == pods
    assert load.lost == []
    assert switched_s < 10
    deployed.wait_condition("Progressing", "False")


def _serves(deployed: Deployed, revision: str) -> bool:
    """Return whether all of the traffic goes to a revision."""
    route = deployed.route()
    return route is not None and route.share_bp(revision) == 10_000


def _own_store(settled: Settled, online: RedisServer) -> None:
    """Make the ConfigMap ``own``: the stage's feature store with an online store of its own."""
    config = json.loads(
        settled.cluster.kubectl("get", "configmap", "feast-client", f"--namespace={settled.namespace}", "--output=json")
    )
    text = config["data"]["feature_store.yaml"]
    before = settled.stage.repo.store.config.online_store.connection_string
    made = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "own", "namespace": settled.namespace},
        "data": {"feature_store.yaml": text.replace(before, online.address)},
        "binaryData": config["binaryData"],
    }
    settled.cluster.apply(made)


def _warnings(cluster: Cluster, namespace: str, spec: dict[str, Any]) -> str:
    """Return what kubectl warns of when it creates a pod, without making one."""
    spec = {**spec, "serviceAccountName": "default"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace}, "spec": spec}
    command = [str(cluster.programs["kubectl"]), f"--kubeconfig={cluster.kubeconfig}", "create", "--dry-run=server"]
    done = subprocess.run(
        [*command, "--filename=-"], input=json.dumps(pod), capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def _follows(settled: Settled, samples: Sequence[Sample], layout: Layout) -> bool:
    """Return whether the last requests went where a layout says."""
    salt = settled.deployed.status()["experiment"]["salt"]
    last = list(samples)[-60:]
    return all(sample.variant == assign(sample.unit, salt, layout) for sample in last)
