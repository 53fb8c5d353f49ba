"""The whole of it: ``fairlead up`` with real model servers, hydrated over REST and gRPC through the gateway."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from fairlead import Layout, assign
from fairlead.cli.inspect import example_instance
from fairlead.clock import ReplayClockWriter, to_us
from support.envoy import MODEL, ManifestFile, Up, post, wait_until
from support.models import contract_of, expected_probability, write_model
from support.predictors import NOON
from support.server_process import FULL_ROW, ROW, Material, make_material

LAYOUT = Layout.of("logistic", {"boosted": 5000})
UNIT = "x-tail-number"
SALT = "flights/arrival-delay/e1"


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def up(material: Material) -> Iterator[Up]:
    """Two variants and a shadow: the material's model twice, and one that gives back nothing but its probability."""
    other = write_model(material.folder / "other.onnx", contract_of(material.repo.describe(), echo=False))
    same = {"uri": "model.onnx", "digest": material.digest}
    manifest = ManifestFile.make(
        material.folder,
        featureStore={"path": "repo"},
        routing={"unit": {"header": UNIT}},
        variants=[
            {"name": "logistic", "role": "Control", "model": same},
            {"name": "boosted", "role": "Treatment", "model": {"uri": "other.onnx", "digest": other}},
            {"name": "next", "role": "Shadow", "model": same},
        ],
    )
    up = Up(manifest, "--clock", "replay", server_command="")
    up.state.mkdir()
    ReplayClockWriter(up.state / "clock", to_us(NOON))
    up.start().wait_ready(90)
    yield up
    assert up.stop() == 0, up.explain()


def exposures(up: Up, variant: str) -> Counter[str]:
    text = httpx.get(f"http://127.0.0.1:{up.http_port(variant)}/metrics", trust_env=False).text
    found = re.findall(r'^fairlead_exposures\w*\{[^}]*outcome="(\w+)"[^}]*\} (\d+)', text, re.MULTILINE)
    return Counter({outcome: int(count) for outcome, count in found})


async def test_every_unit_is_answered_and_exposed_to_the_arm_that_assign_says(up: Up) -> None:
    units = [f"N{index}" for index in range(300)]
    before = {name: exposures(up, name) for name in ("logistic", "boosted", "next")}
    body = json.dumps({"instances": [ROW]}).encode()
    answers = await post(up.port, [{UNIT: unit} for unit in units], body=body)
    assert {answer.status for answer in answers} == {200}
    arms = [assign(unit, SALT, LAYOUT) for unit in units]
    assert [answer.variant for answer in answers] == arms
    forged = {"x-fairlead-experiment": "v1.k1.x.y"}
    await post(up.port, [forged, {**forged, "x-fairlead-variant": "boosted", UNIT: "u"}], body=body)
    for arm in ("logistic", "boosted"):
        assert (exposures(up, arm) - before[arm]) == Counter(exposed=arms.count(arm), none=1)
    wait_until(lambda: (exposures(up, "next") - before["next"])["shadow"] == 300, 5)
    assert (exposures(up, "next") - before["next"])["exposed"] == 0


def test_the_line_to_try_sends_the_deployments_unit_and_is_answered(up: Up, material: Material) -> None:
    [line] = [line for line in up.log.read_text().splitlines() if line.startswith("curl ")]
    words = shlex.split(line)
    tail = str(example_instance(material.contract)["tailnum"])
    assert f"{UNIT}: {tail}" in words
    done = subprocess.run([*words, "-D", "-"], capture_output=True, text=True, check=True, timeout=30)
    assert " 200 " in done.stdout.splitlines()[0]
    assert f"x-variant: {assign(tail, SALT, LAYOUT)}" in done.stdout


def test_the_status_tells_the_contract_that_the_server_has(up: Up) -> None:
    metadata = httpx.get(f"{up.url}/v2/models/{MODEL}", trust_env=False).json()
    assert up.variant("logistic")["contractDigest"] == metadata["parameters"]["contract_digest"]


def test_tritons_clients_pass_through_the_gateway(up: Up, material: Material) -> None:
    row = dict(FULL_ROW)
    inputs = {name: np.array([value]) for name, value in row.items()}
    probability = float(expected_probability(material.contract, inputs)[0])
    address = f"127.0.0.1:{up.port}"
    checks = Path(__file__).parents[1] / "support/triton_checks.py"
    arguments = [address, address, str(probability), json.dumps(row)]
    done = subprocess.run([sys.executable, str(checks), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def command(up: Up, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fairlead.cli.main", *arguments],
        cwd=up.manifest.path.parent,
        capture_output=True,
        text=True,
        input=stdin,
        check=False,
        timeout=60,
    )


def test_predict_asks_per_unit_and_says_who_answered(up: Up, tmp_path: Path) -> None:
    rows = [{**ROW, "tailnum": tail} for tail in ("N14228", "N24211", "N14228")]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    done = command(
        up, "predict", "-f", "modeldeployment.yaml", "--unit-from", "tailnum", "--data", f"@{tmp_path}/rows.json"
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(answer["unit"], len(answer["predictions"])) for answer in told] == [("N14228", 2), ("N24211", 1)]
    assert [answer["variant"] for answer in told] == [assign(answer["unit"], SALT, LAYOUT) for answer in told]


def test_predict_fails_when_a_request_is_refused(up: Up) -> None:
    done = command(up, "predict", "-f", "modeldeployment.yaml", "--data", '{"tailnum": "N1"}')
    assert done.returncode == 1
    assert json.loads(done.stdout)["status"] == 400
    assert done.stderr.startswith("error: ")


def test_status_shows_the_resource_as_table_json_and_yaml(up: Up) -> None:
    table = command(up, "status").stdout
    assert all(word in table for word in ("logistic", "boosted", "Ready", "AsSpecified", "simulated time 20"))
    resource = json.loads(command(up, "status", "-o", "json").stdout)
    assert resource["kind"] == "ModelDeployment"
    assert resource["status"]["variants"][1]["weight"] == 50
    assert "kind: ModelDeployment" in command(up, "status", "-o", "yaml").stdout


def test_a_model_without_contract_is_refused_with_the_servers_message(tmp_path: Path, material: Material) -> None:
    digest = write_model(tmp_path / "bare.onnx", material.contract, with_contract=False)
    variant = {"name": "logistic", "role": "Control", "model": {"uri": "bare.onnx", "digest": digest}}
    manifest = ManifestFile.make(
        tmp_path, featureStore={"path": str(material.repo.path)}, variants=[variant], rollout={"weights": {}}
    )
    up = Up(manifest, server_command="").start()
    assert up.process is not None
    assert up.process.wait(60) == 1
    last = up.log.read_text().strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "no contract in the model's metadata" in last
