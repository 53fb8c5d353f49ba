"""What Terraform says about an installation is what chart and Feast take: real Terraform, with a mocked provider."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig

from support.charts import ChartRefused, one, operator_of, rendered

ROOT = Path(__file__).resolve().parents[2]
PLATFORM = "modules/platform"
DEADLINE_S = 500
REGISTRY = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/fairlead-test"

pytestmark = pytest.mark.timeout(DEADLINE_S + 60)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Outputs of the wired modules; their own tests have passed then, too."""
    if shutil.which("terraform") is None:
        pytest.skip("there is no terraform on PATH")
    file = tmp_path_factory.mktemp("terraform") / "outputs.json"
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "terraform", PLATFORM, "--outputs", file],
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(file.read_text())[PLATFORM])


@pytest.fixture(scope="module")
def values(outputs: dict[str, Any]) -> dict[str, Any]:
    return dict(yaml.safe_load(outputs["helm_values"]))


def test_the_chart_takes_the_values(values: dict[str, Any]) -> None:
    deployment = operator_of(rendered("fairlead", values))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    variables = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert container["image"].startswith(f"{REGISTRY}/operator:")
    assert variables["FAIRLEAD_OPERATOR_SERVER_IMAGE"] == f"{REGISTRY}/server:{{release}}"
    assert variables["FAIRLEAD_OPERATOR_HOST_DOMAIN"] == "models.example.com"
    assert deployment["spec"]["replicas"] == 2


def test_the_chart_would_refuse_what_it_does_not_know(values: dict[str, Any]) -> None:
    with pytest.raises(ChartRefused):
        rendered("fairlead", {**values, "registry": REGISTRY})


def test_the_operator_may_reach_the_api_server_by_either_address(values: dict[str, Any]) -> None:
    policy = one(rendered("fairlead", values), "NetworkPolicy", "fairlead-operator")
    peers = [
        peer["ipBlock"]["cidr"] for rule in policy["spec"]["egress"] for peer in rule.get("to", []) if "ipBlock" in peer
    ]
    assert {"172.20.0.0/16", "10.40.0.0/16"} <= set(peers)


def test_feast_takes_the_online_store(outputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", "aB3" * 20)
    fragment = yaml.safe_load(os.path.expandvars(outputs["feature_store_yaml"]))["online_store"]
    store = RedisOnlineStoreConfig(**fragment)
    nodes, options = RedisOnlineStore._parse_connection_string(store.connection_string)
    assert nodes == [{"host": "master.mocked.cache.amazonaws.com", "port": "6379"}]
    assert options == {"ssl": True, "password": "aB3" * 20}


def test_no_password_is_told(outputs: dict[str, Any]) -> None:
    assert "${REDIS_PASSWORD}" in outputs["feature_store_yaml"]
    assert "abcdefghijklmnop" not in json.dumps(outputs)
