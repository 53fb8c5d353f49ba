"""What no server answered is an error of its arm: told from the real gateway's log, by a real kubelet, once."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from fairlead import assign
from fairlead.route import EXPERIMENT_HEADER, OVERRIDE_HEADER
from fairlead_operator.platforms.kubernetes.kinds import ENVOY_FILTER, REVISION_LABEL
from support import figures
from support.cluster import Cluster
from support.cluster_deployments import MODEL_NAME, Deployed, Stage, stage_of
from support.cluster_ledger import ClusterLedger, cluster_ledger
from support.cluster_operator import ClusterOperator, install, operator_of
from support.gateway_load import Load, Sample
from support.server_process import ROW
from support.servers import RedisServer

NAME, CONTROL, TREATMENT = "delay", "logistic", "boosted"
SHARE = 50
UNITS = [f"unit-{number}" for number in range(4000)]
ONE_OF = 50
"""Packets with data that reach the treatment, of which one is answered by a reset."""
LATE_S = 200.0
"""Within which a line is told: Envoy writes it within 10 s, its minute ends, and the machine may be slow."""
FORGED = {EXPERIMENT_HEADER: "v1.k1.e30.AA", OVERRIDE_HEADER: TREATMENT}
JUDGED = {
    "objective": {"metric": "delayed", "kind": "Mean", "better": "Lower", "minimumEffect": "5%"},
    "guardrails": [{"metric": "error", "margin": "0.5pp"}],
    "outcomeWindow": "1h",
}


@dataclass(frozen=True, slots=True)
class World:
    """A deployment whose experiment has a ledger."""

    stage: Stage
    operator: ClusterOperator
    ledger: ClusterLedger
    deployed: Deployed

    def deploy(self, id_: str, rollout: dict[str, Any]) -> None:
        """Begin an experiment of two arms, and return once its units are observed."""
        variants = [self.stage.variant(CONTROL), self.stage.variant(TREATMENT, "Treatment")]
        experiment = {"id": id_, **JUDGED}
        self.stage.apply(self.stage.manifest(NAME, variants, rollout=rollout, experiment=experiment))
        self.deployed.wait(lambda: self.deployed.weights_bp().get(TREATMENT) == SHARE * 100)
        self.deployed.wait_condition("ExperimentHealthy")

    def units_of(self, variant: str) -> list[str]:
        """Return the units of an arm."""
        route = self.deployed.route()
        assert route is not None
        layout = self.deployed.layout(CONTROL, **{TREATMENT: SHARE})
        return [unit for unit in UNITS if assign(unit, route.salt, layout) == variant]

    def load(self, units: list[str]) -> Load:
        return Load(self.deployed.address, self.deployed.host, MODEL_NAME, units, connections=2)

    def process(self) -> int:
        """Return the process of the treatment's server, as the machine numbers it."""
        revision = next(one["revision"] for one in self.deployed.status()["variants"] if one["name"] == TREATMENT)
        (uid,) = self.deployed.pods(**{REVISION_LABEL.replace("/", "__"): revision})
        found = [int(place.parent.name) for place in Path("/proc").glob("[0-9]*/cgroup") if _is_server(place, uid)]
        assert found, f"no server of pod {uid}"
        return min(found)

    def told(self) -> int:
        return self.ledger.told_by_gateways().get(TREATMENT, 0)

    def story(self) -> str:
        return f"{self.ledger.told_by_gateways()} {self.ledger.of_units()}\n{self.operator.story()}"


def _is_server(cgroup: Path, uid: str) -> bool:
    try:
        command = (cgroup.parent / "cmdline").read_bytes()
        return uid in cgroup.read_text() and b"fairlead_server" in command
    except OSError:
        return False


@contextmanager
def resets(pid: int) -> Iterator[None]:
    """Have a share of what reaches a pod's server answered by a reset: by its network, so that it is healthy itself."""
    inside = ["nsenter", f"--target={pid}", "--net", "nft"]
    rule = f"tcp dport {{8080, 8081}} tcp flags & psh == psh numgen random mod {ONE_OF} 0 reject with tcp reset"
    made = f"table inet lossy {{\nchain input {{\ntype filter hook input priority 0;\n{rule}\n}}\n}}\n"
    subprocess.run([*inside, "-f", "-"], input=made, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run([*inside, "delete", "table", "inet", "lossy"], check=True)


@pytest.fixture(scope="module")
def world(cluster: Cluster, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if shutil.which("nft") is None:
        pytest.skip("nft is missing (Debian: nftables); requests are reset by it")
    folder = tmp_path_factory.mktemp("unanswered")
    install(cluster)
    namespace = f"u{secrets.token_hex(3)}"
    with (
        cluster_ledger(cluster.node_ip, tmp_path_factory.mktemp("ledger")) as ledger,
        stage_of(cluster, redis, namespace, folder) as stage,
    ):
        haste = ("--unavailable-grace-s=120", "--report-interval-s=5", "--analysis-interval-s=3")
        with operator_of(cluster, namespace, folder, flags=(*haste, *ledger.flags)) as operator:
            yield World(stage, operator, ledger, Deployed(stage, NAME))
            stage.retire()
        assert operator.errors() == []


@pytest.mark.timeout(600)
def test_each_request_that_no_server_answered_is_told_once(world: World) -> None:
    world.deploy("e1", {"strategy": "Manual", "weights": {TREATMENT: SHARE}})
    lost: list[Sample] = []
    with world.load(world.units_of(TREATMENT)) as load, resets(world.process()):
        world.deployed.wait(lambda: len(load.lost) >= 10)
        world.operator.kill()
        lost_before = len(load.lost)
        world.deployed.wait(lambda: len(load.lost) >= lost_before + 5)
        _ask_forged(world, 200)
        world.operator.start()
        lost_before = len(load.lost)
        world.deployed.wait(lambda: len(load.lost) >= lost_before + 5)
    lost += load.lost
    assert len(load.samples) > len(lost)
    world.deployed.wait(lambda: world.told() >= len(lost), LATE_S)
    time.sleep(75)  # what is told twice would come with the next minute: nothing else ends a wait for nothing
    assert world.ledger.told_by_gateways() == {TREATMENT: len(lost)}, f"{lost}\n{world.story()}"
    metrics = {
        name: world.operator.metric(f"fairlead_{name}") for name in ("gateway_logs", "gateway_log_failures_total")
    }
    assert metrics == {"gateway_logs": 1, "gateway_log_failures_total": 0}
    figures.note("unanswered", requests=len(load.samples), lost=len(lost), told=world.told())
    named = world.stage.api.items(ENVOY_FILTER, world.stage.cluster.gateway.namespace)
    ours = [one for one in named if re.match(r"fairlead-unanswered-", one["metadata"]["name"])]
    assert len(ours) == 1, "one filter for all deployments of a gateway"


@pytest.mark.timeout(1200)
def test_a_treatment_that_loses_one_request_in_fifty_rolls_back_by_its_error_guardrail(world: World) -> None:
    steps = [{"weights": {TREATMENT: SHARE}, "hold": "1h"}, {"weights": {TREATMENT: SHARE}}]
    world.deploy("e2", {"strategy": "Experiment", "steps": steps})
    before = world.told()
    with world.load(UNITS) as load, resets(world.process()):
        world.deployed.wait(lambda: "decision" in world.deployed.status()["rollout"], 600)
    decision = world.deployed.status()["rollout"]["decision"]
    assert (decision["verdict"], decision["reason"]) == ("Rollback", "GuardrailBreached"), world.story()
    world.deployed.wait(lambda: world.deployed.weights_bp().get(TREATMENT) == 0)
    figures.note("unanswered-rollback", requests=len(load.samples), lost=len(load.lost), told=world.told() - before)


def _ask_forged(world: World, count: int) -> None:
    """Ask for the treatment by name, with an experiment header that nobody has signed; some get no answer."""
    body = json.dumps({"instances": [ROW]})
    for number in range(count):
        connection = HTTPConnection(world.deployed.address, timeout=30)
        headers = {"host": world.deployed.host, "x-unit-id": UNITS[number], **FORGED}
        connection.request("POST", f"/v1/models/{MODEL_NAME}:predict", body, headers)
        connection.getresponse().read()
        connection.close()
