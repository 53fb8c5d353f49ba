"""``fairlead init``: names, what is never overwritten, all or nothing; and the project that it writes, used as told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from fairlead.cli.errors import CommandError
from fairlead.cli.init import NAME_MAX, starter
from fairlead.cli.main import application
from fairlead_operator.api.manifest import read
from fairlead_operator.api.v1alpha1 import NAMES_MAX
from fairlead_operator.platforms.kubernetes.render.names import name_too_long
from support.admission import complaints
from support.charts import ChartRefused, operator_of, rendered
from support.console import commands_of
from support.envoy import wait_until
from support.servers import free_port

TROUBLESHOOTING = Path(__file__).resolve().parents[2] / "docs/troubleshooting.md"
LONGEST = "n" * NAME_MAX


def init(*arguments: str | Path) -> str:
    """Run the command in this process; return what it said."""
    done = CliRunner().invoke(application(), ["init", *map(str, arguments)], catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["Shop", "9lives", "-a", "a-", "a.b", "a_b", "", "ä", LONGEST + "n", "a b", "../a"])
def test_a_name_that_cannot_be_one_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot name a deployment") as refused:
        init(tmp_path / "new", "--name", name)
    assert refused.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_name_a_deployment_asks_for_a_name(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="FOLDER: 'My_Shop' cannot name a deployment; give --name"):
        init(tmp_path / "My_Shop")
    init(tmp_path / "My_Shop", "--name", "shop")
    assert read(tmp_path / "My_Shop/modeldeployment.yaml").deployment.metadata.name == "shop"


@pytest.mark.parametrize("name", ["a", "shop", LONGEST])
def test_every_name_that_is_taken_fits_the_api_and_kserve(name: str) -> None:
    documents = {path: yaml.safe_load(text) for path, text in starter(name) if path.name == "modeldeployment.yaml"}
    assert len(documents) == 2
    for path, document in documents.items():
        assert path.parent.name != "cluster" or not list(complaints(document))
        assert document["metadata"]["name"] == name
        [variant] = document["spec"]["variants"]
        assert len(name) + len(variant["name"]) <= NAMES_MAX
        assert name_too_long(document["metadata"]["namespace"], f"{name}-{variant['name']}-{'0' * 8}") is None
    stores = [yaml.safe_load(text) for path, text in starter(name) if path.name.startswith("feature_store")]
    assert {store["project"] for store in stores} == {name.replace("-", "_")}


def test_the_values_are_those_of_the_chart() -> None:
    """Helm itself takes them; its schema refuses what is misspelt."""
    [values] = [yaml.safe_load(text) for path, text in starter("shop") if path.name == "values.yaml"]
    operator = operator_of(rendered("fairlead", values))
    assert {"name": "FAIRLEAD_OPERATOR_NAMESPACES", "value": "models"} in _environment(operator)
    with pytest.raises(ChartRefused):
        rendered("fairlead", values | {"operater": {}})


def _environment(operator: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = operator["spec"]["template"]["spec"]["containers"][0]["env"]
    return found


def test_the_template_s_own_name_is_nowhere_left() -> None:
    assert not [path for path, text in starter("shop") if b"order-returns" in text or b"order_returns" in text]


def test_a_folder_with_files_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("mine")
    with pytest.raises(CommandError, match=r"is not empty \(train.py\)"):
        init(tmp_path, "--name", "shop")
    assert content(tmp_path) == {"train.py": b"mine"}


def test_force_writes_what_is_missing_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("mine")
    said = init(tmp_path, "--name", "shop", "--force")
    assert "kept   " in said
    assert (tmp_path / "train.py").read_text() == "mine"
    assert set(content(tmp_path)) == {str(path) for path, _ in starter("shop")}
    before = content(tmp_path)
    init(tmp_path, "--name", "other", "--force")
    assert content(tmp_path) == before


def test_a_folder_with_a_git_repository_only_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    init(tmp_path, "--name", "shop")
    assert (tmp_path / ".gitignore").exists()


def test_a_file_or_a_missing_parent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="is no folder"):
        init(tmp_path / "file")
    with pytest.raises(CommandError, match="parent folder is not there"):
        init(tmp_path / "no" / "shop")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(CommandError):
        init(tmp_path / "dangling")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "dangling"}


def test_a_failure_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    """A dangling link where a folder has to be lets the last files fail after the first were written."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "feature_repo").write_text("a file where a folder has to be")
    with pytest.raises(CommandError, match="nothing was"):
        init(folder, "--force")
    assert set(content(folder)) == {"feature_repo"}
    assert not (folder / "cluster").exists()


def run(folder: Path, *arguments: str) -> str:
    """Run Python in the project, as its README says."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shell(folder: Path, text: str) -> None:
    """Run a command of the docs in the project."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", text],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, f"$ {text}\n{done.stdout}{done.stderr}"


@pytest.mark.timeout(400)
def test_the_project_works_as_it_is_written(tmp_path: Path) -> None:
    """Train, serve, ask: the answer comes from features of the store, and all that `up` started ends with it."""
    folder, port = tmp_path / "shop", free_port()
    init(folder)
    cli = ("-m", "fairlead.cli.main")
    assert "Brier" in run(folder, "train.py")
    run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_model.py")
    cluster = yaml.safe_load((folder / "cluster/modeldeployment.yaml").read_text())
    local = yaml.safe_load((folder / "modeldeployment.yaml").read_text())
    digests = {one["spec"]["variants"][0]["model"]["digest"] for one in (cluster, local)}
    assert len(digests) == 1
    assert not list(complaints(cluster))

    up = subprocess.Popen(
        [sys.executable, *cli, "up", "-f", "modeldeployment.yaml", "--port", str(port)],
        cwd=folder,
        stdout=(tmp_path / "up.log").open("wb"),
        stderr=subprocess.STDOUT,
    )
    try:
        wait_until(
            lambda: up.poll() is not None or _is_ready(folder / ".fairlead/shop/status.json"),
            150,
            (tmp_path / "up.log").read_text,
        )
        customer = {"customer_id": "c0001", "basket_eur": 80.0, "items": 3}
        ask = [*cli, "predict", "-f", "modeldeployment.yaml", "--unit-from", "customer_id", "--data"]
        both = [customer, customer | {"customer_id": "nobody"}]
        for command in commands_of(TROUBLESHOOTING.read_text(), "here"):
            shell(folder, command.text)
        known, unknown = map(json.loads, run(folder, *ask, json.dumps(both)).splitlines())
    finally:
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0, (tmp_path / "up.log").read_text()
    assert (known["status"], known["variant"]) == (200, "baseline")
    chances = [answer["predictions"][0]["probability_returned"] for answer in (known, unknown)]
    assert all(0 < chance < 1 for chance in chances)
    assert chances[0] != chances[1], "the customer's own history made no difference"


def _is_ready(file: Path) -> bool:
    if not file.exists():
        return False
    conditions: list[dict[str, Any]] = json.loads(file.read_bytes())["status"]["conditions"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
