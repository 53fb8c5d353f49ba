"""Model storage and feature stores as pods meet them: an S3-compatible server, a claim, Secrets, a FeatureStore."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fairlead_operator.platforms.kubernetes.kinds import EVENT, POD, SECRET, Kind
from support.cluster import Cluster, KubectlError, wait_for
from support.cluster_deployments import Deployed, Stage
from support.cluster_features import FeatureStory
from support.cluster_settled import CONTROL, Settled, steady
from support.s3 import REGION, S3Server

VOLUME = Kind("", "v1", "PersistentVolume", "persistentvolumes", namespaced=False)
CLAIM = Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
WRONG_SECRET = "a-wrong-secret-that-nobody-may-see"  # noqa: S105 -- a test's own
REFUSALS = {
    "wrongkey": "the key id nosuchke… is not known to",
    "wrongsecret": "the secret is not the one of key id",
    "nosecret": 'secret "s3-absent" not found',
    "noobject": "no such object (404)",
    "digest": "its digest is sha256:",
}
"""What is told, by variant."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A deployment whose models are in a bucket and on a claim; all but two variants cannot get theirs."""

    deployed: Deployed
    s3: S3Server


@pytest.fixture(scope="module")
def stored(shared: Settled, s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    stage = shared.stage
    for name in (CONTROL, "forest"):
        s3.put(f"{name}.onnx", (stage.files / f"{name}.onnx").read_bytes())
    _secret(stage, "s3-good", s3.key_id, s3.secret)
    _secret(stage, "s3-wrong-key", "nosuchkeyid", WRONG_SECRET)
    _secret(stage, "s3-wrong-secret", s3.key_id, WRONG_SECRET)
    volume, claim = _claimed(stage, tmp_path_factory.mktemp("claim"))
    stage.api.apply(VOLUME, volume)
    stage.api.apply(CLAIM, claim)

    def variant(name: str, secret: str, key: str = "forest.onnx", digest: str = "forest") -> dict[str, Any]:
        storage = {"secretRef": {"name": secret}, "endpoint": s3.endpoint, "region": REGION}
        model = {"uri": f"s3://{s3.bucket}/{key}", "digest": stage.digests[digest], "storage": storage}
        return {**stage.variant(name, "Treatment", model="forest"), "model": model}

    on_claim = {"uri": "pvc://models/trained/next.onnx", "digest": stage.digests["next"]}
    variants = [
        {**variant(CONTROL, "s3-good", f"{CONTROL}.onnx", CONTROL), "role": "Control"},
        {**stage.variant("claimed", "Treatment", model="next"), "model": on_claim},
        variant("wrongkey", "s3-wrong-key"),
        variant("wrongsecret", "s3-wrong-secret"),
        variant("nosecret", "s3-absent"),
        variant("noobject", "s3-good", key="absent.onnx"),
        variant("digest", "s3-good", digest="last"),
    ]
    rollout = {"strategy": "Manual", "weights": {"claimed": 10}}
    deployed = stage.apply(stage.manifest("stored", variants, rollout=rollout))
    yield Stored(deployed, s3)
    deployed.delete()
    deployed.wait(lambda: not deployed.pods(), 60)
    stage.api.delete(VOLUME, None, volume["metadata"]["name"])


def test_models_come_from_a_bucket_with_keys_of_a_secret_and_from_a_claim(stored: Stored) -> None:
    stored.deployed.wait_weights(claimed=10)
    with steady(stored.deployed) as load:
        wait_for(lambda: {sample.variant for sample in load.samples} >= {CONTROL, "claimed"}, timeout_s=20)
    assert load.lost == []


def test_what_is_wrong_with_storage_is_named(stored: Stored) -> None:
    found: dict[str, dict[str, str]] = {}

    def told() -> bool:
        for one in stored.deployed.status().get("variants", []):
            if "lastFailure" in one:
                found[one["name"]] = one["lastFailure"]
        # A kubelet may first say of a Secret that it has not looked yet.
        return all(message in found.get(name, {}).get("message", "") for name, message in REFUSALS.items())

    stored.deployed.wait(told, 60)
    for name in REFUSALS:
        assert found[name]["reason"] == ("PodsBlocked" if name == "nosecret" else "ModelUnavailable")
    assert stored.s3.endpoint in found["wrongkey"]["message"]


def test_no_secret_is_told_anywhere(stored: Stored, shared: Settled) -> None:
    told = json.dumps(stored.deployed.resource())
    told += json.dumps(shared.stage.api.items(EVENT, shared.namespace))
    told += json.dumps(shared.stage.api.items(POD, shared.namespace))
    told += shared.operator.log.read_text()
    told += "".join(_log(shared.cluster, pod) for pod in stored.deployed.pods().values())
    assert "storage-initializer" in told
    for secret in (stored.s3.secret, WRONG_SECRET):
        assert secret not in told
        assert base64.b64encode(secret.encode()).decode() not in told


def test_a_deployment_waits_for_the_feast_operator_its_feature_store_and_its_readiness(features: FeatureStory) -> None:
    features.join()
    assert list(features.at_s) == ["uninstalled", "absent", "pending", "ready", "changed", "back"]
    assert "install the Feast operator" in features.told["uninstalled"]["message"]
    assert features.told["absent"]["message"].startswith(f"FeatureStore {features.deployed.namespace}/flights is not")
    assert "Pending" in features.told["pending"]["message"]


def test_changed_features_are_told_and_nothing_is_taken_down_for_them(features: FeatureStory) -> None:
    features.join()
    changed = features.told["changed"]
    assert changed["reason"] == "FeaturesChanged"
    assert "small is registered otherwise than the model was trained with" in changed["message"]
    assert "temp" in changed["message"]
    assert features.servable_while_changed == "True"


def _secret(stage: Stage, name: str, key_id: str, secret: str) -> None:
    metadata = {"name": name, "namespace": stage.namespace}
    keys = {"AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret}
    stage.api.apply(SECRET, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys})


def _claimed(stage: Stage, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a volume of this machine with a model in folder ``trained``, and its claim ``models``."""
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)  # pods are another user
    (folder / "trained").mkdir()
    (folder / "trained/next.onnx").write_bytes((stage.files / "next.onnx").read_bytes())
    name, claim = f"models-{stage.namespace}", {"name": "models", "namespace": stage.namespace}
    terms = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {**terms, "capacity": {"storage": "1Gi"}, "hostPath": {"path": str(folder)}, "claimRef": claim},
    }
    wanted = {**terms, "volumeName": name, "resources": {"requests": {"storage": "1Gi"}}}
    return volume, {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": claim, "spec": wanted}


def _log(cluster: Cluster, pod: dict[str, Any]) -> str:
    metadata = pod["metadata"]
    try:
        return cluster.kubectl("logs", metadata["name"], f"--namespace={metadata['namespace']}", "--all-containers")
    except KubectlError as error:  # a container that has not been started has none
        return str(error)
