"""The commands against the real API server, gateway and pods: what they say is what happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead_operator.platforms.kubernetes.contexts import Cluster as Where
from fairlead_operator.platforms.kubernetes.deployed import deployed
from fairlead_operator.platforms.kubernetes.errors import Invalid
from support import figures
from support.cluster_deployments import MODEL_NAME, Deployed
from support.cluster_scene import CONTROL, FIRST, NAME, SECOND, Scene
from support.commands import Ran, here
from support.gateway_asks import units_over_grpc, units_over_rest
from support.gateway_load import Load
from support.server_process import ROW

UNITS = [f"unit-{number}" for number in range(1000)]
NEXT = f"{version('fairlead-operator')}-next"
"""A release of which the test cluster has an image."""


@pytest.fixture(scope="module")
def observed(shared_scene: Scene) -> Deployed:
    """An experiment whose weights are set by hand."""
    rollout = {"strategy": "Manual", "weights": {FIRST: 20, SECOND: 5}}
    found = shared_scene.deploy(rollout=rollout, experiment={"id": "commands"})
    found.wait_weights(**{FIRST: 20, SECOND: 5})
    found.wait_condition("Ready")
    return found


@pytest.fixture
def lone(scene: Scene) -> Iterator[Deployed]:
    """A deployment of a control alone."""
    found = scene.stage.apply(scene.stage.manifest("lone", [scene.stage.variant(CONTROL, model="last")]))
    found.wait_condition("Ready")
    yield found
    found.delete()


def call(where: Deployed, *words: str, given: str = "") -> Ran:
    config = ("--kubeconfig", str(where.stage.cluster.kubeconfig), "-n", where.namespace)
    return here(*words, *config, given=given)


def test_a_thousand_units_land_where_assign_says(scene: Scene, observed: Deployed) -> None:
    told = call(observed, "assign", NAME, "-o", "json", given="\n".join(UNITS))
    assert told.code == 0, told
    arms = [row["arm"] for row in json.loads(told.out)["assignments"]]
    for protocol, asked in (("REST", units_over_rest), ("gRPC", units_over_grpc)):
        landed = asked(observed.address, observed.host, UNITS)
        wrong = [unit for unit, arm, seen in zip(UNITS, arms, landed, strict=True) if arm != seen]
        assert not wrong, f"{len(wrong)} of {len(UNITS)} over {protocol}: {wrong[:5]}"
    assert {CONTROL, FIRST, SECOND} == set(arms)
    revisions = {row["revision"] for row in json.loads(told.out)["assignments"]}
    assert revisions == {one["revision"] for one in observed.status()["variants"]}
    figures.note("assign-says", units=len(UNITS), wrong=0)
    scene.writes.assert_safe()


def test_predictions_come_through_the_gateway_from_the_arm_of_the_unit(observed: Deployed) -> None:
    rows = json.dumps([{**ROW, "who": unit} for unit in UNITS[:3]])
    asked = call(observed, "predict", NAME, "-d", json.dumps(ROW), "--unit", UNITS[7])
    answer = json.loads(asked.out)
    assert (asked.code, answer["status"], len(answer["predictions"])) == (0, 200, 1), asked
    [line] = call(observed, "assign", NAME, UNITS[7]).out.splitlines()
    assert answer["variant"] == line.split("\t")[2]
    refused = call(observed, "predict", NAME, "-d", rows, "--unit-from", "who", "--model", "none")
    assert (refused.code, len(refused.out.splitlines())) == (1, 3)


def test_the_picture_is_that_of_the_cluster_for_kubectl_too(observed: Deployed, tmp_path: Path) -> None:
    shown = call(observed, "status", NAME)
    assert shown.code == 0
    for word in (f"{observed.namespace}/{NAME}", observed.host, "experiment commands", "RoutingReady"):
        assert word in shown.out
    row = next(line for line in shown.out.splitlines() if line.startswith(FIRST)).split()
    assert [row[2], row[4], row[6]] == ["yes", "20", "20"]
    assert observed.namespace in call(observed, "status", "-A").out
    config = yaml.safe_load(observed.stage.cluster.kubeconfig.read_text())
    config["contexts"][0]["context"]["namespace"] = observed.namespace
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    by_kubectl = subprocess.run(
        [str(observed.stage.cluster.programs["kubectl"]), "fairlead", "status", NAME],
        env={"PATH": path, "KUBECONFIG": str(tmp_path / "config"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert f"{observed.namespace}/{NAME}" in by_kubectl.stdout


def test_a_running_experiment_keeps_its_release_whoever_asks(observed: Deployed) -> None:
    refused = call(observed, "upgrade", NAME, "--to", NEXT)
    assert (refused.code, "experiment commands has frozen the server release" in refused.reason) == (1, True)
    where = Where(observed.namespace, None, observed.stage.cluster.kubeconfig)
    with pytest.raises(Invalid, match=r"spec\.serving\.release.*experiment commands has frozen serving\.release"):
        deployed(where, NAME).move_to(NEXT)


def test_a_pause_is_seen_and_taken_back(observed: Deployed) -> None:
    assert call(observed, "pause", NAME).code == 0
    observed.wait_condition("Progressing", "False", reason="Paused")
    assert "paused since" in call(observed, "status", NAME).out
    assert call(observed, "resume", NAME).code == 0
    observed.wait(lambda: "pausedAt" not in observed.status()["rollout"])


def test_control_moves_to_another_release_under_load_without_a_lost_request(lone: Deployed) -> None:
    would = call(lone, "upgrade", lone.name, "--to", NEXT, "--dry-run")
    assert (would.code, "the API would take it" in would.out) == (0, True), would
    before = _revision(lone)
    with Load(lone.address, lone.host, MODEL_NAME, UNITS, connections=2, pause_s=0.05) as load:
        moved = call(lone, "upgrade", lone.name, "--to", NEXT)
        assert moved.code == 0, moved
        lone.wait(lambda: _revision(lone) != before)
        lone.wait_condition("Ready")
    figures.note("upgrade-under-load", requests=len(load.samples), lost=len(load.lost))
    assert load.lost == []
    assert lone.status()["servingRelease"] == NEXT
    images = {c["image"] for pod in lone.pods().values() for c in pod["spec"]["containers"]}
    assert f"fairlead.local/server:{NEXT}" in images


def test_somebody_without_a_role_is_told_whom_to_ask(observed: Deployed, tmp_path: Path) -> None:
    config: dict[str, Any] = yaml.safe_load(observed.stage.cluster.kubeconfig.read_text())
    token = observed.stage.cluster.kubectl("create", "token", "default", f"--namespace={observed.namespace}").strip()
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    refused = here("status", NAME, "-n", observed.namespace, "--kubeconfig", str(tmp_path / "config"))
    assert refused.code == 1
    assert "cannot get resource" in refused.reason
    assert f"kubectl create rolebinding NAME --clusterrole=edit --user=YOU -n {observed.namespace}" in refused.reason
    nowhere = here("status", NAME, "-n", "nowhere", "--kubeconfig", str(observed.stage.cluster.kubeconfig))
    assert nowhere.reason == "error: no namespace nowhere in this cluster; `kubectl get namespaces` lists them"


def _revision(one: Deployed) -> str:
    """Return the revision that serves what no candidate has."""
    route = one.route()
    assert route is not None
    return route.control.revision
