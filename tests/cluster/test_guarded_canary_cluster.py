"""A canary with guardrails in a real cluster: real servers tell the ledger of two revisions of one variant."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from support import figures
from support.cluster import Cluster
from support.cluster_deployments import MODEL_NAME, Deployed, Stage, stage_of
from support.cluster_ledger import ClusterLedger, cluster_ledger
from support.cluster_operator import ClusterOperator, install, operator_of
from support.gateway_load import Load
from support.servers import RedisServer

NAME, CONTROL = "delay", "logistic"
UNITS = [f"unit-{number}" for number in range(2000)]
STEPS = [{"weights": {CONTROL: 20}, "hold": "10s"}, {"weights": {CONTROL: 50}, "hold": "10s"}]
GUARDRAILS = [{"metric": "error", "margin": "1pp"}, {"metric": "latency_ms", "margin": "90%"}]


@dataclass(frozen=True, slots=True)
class World:
    """A single model whose canaries have a ledger."""

    stage: Stage
    operator: ClusterOperator
    ledger: ClusterLedger
    deployed: Deployed

    def deploy(self, model: str) -> None:
        manifest = self.stage.manifest(
            NAME,
            [self.stage.variant(CONTROL, model=model)],
            rollout={"strategy": "Canary", "steps": STEPS, "keepPrevious": "1s"},
            experiment={"guardrails": GUARDRAILS},
        )
        self.stage.apply(manifest)

    def revision(self) -> str:
        (variant,) = self.deployed.status()["variants"]
        return str(variant["revision"])


@pytest.fixture(scope="module")
def world(cluster: Cluster, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, namespace = tmp_path_factory.mktemp("canary"), f"c{secrets.token_hex(3)}"
    install(cluster)
    with (
        cluster_ledger(cluster.node_ip, tmp_path_factory.mktemp("ledger")) as ledger,
        stage_of(cluster, redis, namespace, folder) as stage,
    ):
        haste = ("--report-interval-s=5", "--analysis-interval-s=3")
        with operator_of(cluster, namespace, folder, flags=(*haste, *ledger.flags)) as operator:
            yield World(stage, operator, ledger, Deployed(stage, NAME))
            stage.retire()
        assert operator.errors() == []


@pytest.mark.timeout(900)
def test_a_good_revision_goes_by_its_steps_on_what_servers_told(world: World) -> None:
    world.deploy("logistic")
    world.deployed.wait_condition("Ready")
    old = world.revision()
    with Load(world.deployed.address, world.deployed.host, MODEL_NAME, UNITS, connections=2) as load:
        world.deploy("next")
        world.deployed.wait(lambda: world.revision() != old)
        world.deployed.wait(lambda: "decision" in world.deployed.status()["rollout"], 400)
    new, decision = world.revision(), world.deployed.status()["rollout"]["decision"]
    assert (decision["verdict"], decision["reason"]) == ("Promote", "StepsCompleted"), world.operator.story()
    assert load.lost == []
    world.deployed.wait(lambda: "record" in world.deployed.status()["rollout"]["decision"], 60)
    told = world.ledger.of_units()
    assert told.keys() == {old, new}
    assert all(requests > errors == 0 for errors, requests in told.values())
    key = (world.ledger.folder / "operator").read_text()
    record = httpx.get(
        world.deployed.status()["rollout"]["decision"]["record"],
        headers={"authorization": f"Bearer {key}"},
        trust_env=False,
    ).json()
    assert (record["design"]["control"], record["decision"]["winner"]) == (old, new)
    assert not record["report"]["sample_ratio"]["is_broken"]
    figures.note("guarded-canary", requests=len(load.samples), units=told[new][1], lost=len(load.lost))
