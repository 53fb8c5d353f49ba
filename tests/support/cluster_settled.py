"""One settled ModelDeployment that several modules of cluster tests share: pods start slowly, so few are made.

Whoever does something to it leaves it as it was, or able to come back to that by itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from fairlead.assignment import assign
from fairlead_operator.platforms.kubernetes.kinds import POD, REPLICA_SET, REVISION_LABEL, VIRTUAL_SERVICE
from support.cluster import Cluster
from support.cluster_api import Resource, Watch
from support.cluster_deployments import MODEL_NAME, Deployed, Stage, stage_of
from support.cluster_features import FeatureStory, feature_story
from support.cluster_operator import ClusterOperator, install, operator_of
from support.gateway_load import Load
from support.servers import RedisServer

CONTROL, TREATMENT = "logistic", "boosted"
SHARE = 30
"""Per cent of the treatment."""
GRACE_S = 4.0
RESYNC_S = 10.0
UNITS = [f"unit-{number}" for number in range(200)]
FLAGS = (f"--unavailable-grace-s={GRACE_S}", f"--resync-interval-s={RESYNC_S}", "--report-interval-s=5")
_SCALING = {"minReplicas": 1, "maxReplicas": 2}


@dataclass(frozen=True, slots=True)
class Settled:
    """A deployment with a control and a treatment that answer, and the operator that keeps it."""

    stage: Stage
    operator: ClusterOperator
    deployed: Deployed

    @property
    def cluster(self) -> Cluster:
        return self.stage.cluster

    @property
    def namespace(self) -> str:
        return self.stage.namespace

    def come_back(self) -> None:
        """Return once it is as it was at first."""
        if not self.operator.is_running:
            self.operator.start()
        self.stage.apply(settled_manifest(self.stage))
        self.deployed.wait_condition("Ready")
        self.deployed.wait_weights(**{TREATMENT: SHARE})

    def watch_routes(self) -> Watch:
        """Return a watch of the namespace's VirtualServices."""
        return Watch(self.cluster.kubeconfig, VIRTUAL_SERVICE, self.namespace)

    def revision(self, variant: str) -> str:
        """Return the revision of a variant."""
        found = next(one for one in self.deployed.status()["variants"] if one["name"] == variant)
        name: str = found["revision"]
        return name

    def pods(self, variant: str) -> dict[str, Resource]:
        """Return the pods of a variant by uid."""
        return self.deployed.pods(**{REVISION_LABEL.replace("/", "__"): self.revision(variant)})

    def ready_pods(self, variant: str) -> dict[str, Resource]:
        """Return those that are ready."""
        return {uid: pod for uid, pod in self.pods(variant).items() if is_ready(pod)}

    def hurry(self, variant: str) -> None:
        """Have a variant's ReplicaSet look again now: after refused pods it does so with growing pauses."""
        for one in self.stage.api.items(REPLICA_SET, self.namespace):
            if one["metadata"]["name"].startswith(self.revision(variant)):
                self.stage.api.annotate(REPLICA_SET, self.namespace, one["metadata"]["name"], looked="again")

    def units_of(self, variant: str) -> set[str]:
        """Return the units that the law gives a variant at its share."""
        salt, layout = self.deployed.status()["experiment"]["salt"], self.deployed.layout(CONTROL, **{TREATMENT: SHARE})
        return {unit for unit in UNITS if assign(unit, salt, layout) == variant}

    def delete_pod(self, name: str) -> None:
        """Delete a pod as the scheduler of a preempted one does."""
        self.stage.api.delete(POD, self.namespace, name)


def settled_manifest(stage: Stage) -> dict[str, Any]:
    """Return the shared deployment's manifest."""
    variants = [stage.variant(CONTROL), stage.variant(TREATMENT, "Treatment", scaling=_SCALING)]
    rollout = {"strategy": "Manual", "weights": {TREATMENT: SHARE}}
    return stage.manifest("delay", variants, rollout=rollout, experiment={"id": "e1"})


def steady(deployed: Deployed, units: Sequence[str] = UNITS) -> Load:
    """Return predictions asked for over REST and gRPC from when it is entered until it is left."""
    return Load(deployed.address, deployed.host, MODEL_NAME, units, connections=1)


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Return whether a pod is ready and not about to go."""
    if "deletionTimestamp" in pod["metadata"]:
        return False
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


@pytest.fixture(scope="session")
def shared(cluster: Cluster, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settled]:
    """The shared deployment; tests take ``settled``."""
    folder = tmp_path_factory.mktemp("settled")
    install(cluster)
    namespace = f"s{secrets.token_hex(3)}"
    with (
        stage_of(cluster, redis, namespace, folder) as stage,
        operator_of(cluster, namespace, folder, flags=FLAGS) as operator,
    ):
        deployed = stage.apply(settled_manifest(stage))
        deployed.wait_condition("Ready")
        deployed.wait_weights(**{TREATMENT: SHARE})
        yield Settled(stage, operator, deployed)


@pytest.fixture(scope="session")
def features(shared: Settled, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStory]:
    """The story of a FeatureStore, which goes on beside the tests."""
    with feature_story(shared.stage, redis, tmp_path_factory.mktemp("features") / "repo") as story:
        yield story


@pytest.fixture
def settled(shared: Settled, features: FeatureStory) -> Settled:
    """The shared deployment as it was at first, its operator running; beside it a FeatureStore's story goes on."""
    assert not features.problem, features.problem
    shared.come_back()
    return shared
