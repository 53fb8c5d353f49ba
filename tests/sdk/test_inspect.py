"""``fairlead inspect``: the contract as a table and as JSON, and a curl line that is a valid request."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fairlead.cli.inspect import curl_line, example_instance, read_model
from fairlead.contract import Contract, sha256
from support.estimators import EXAMPLE, boosted, fitted, packaged
from support.frames import Frames
from support.models import contract_of, write_model
from support.store import FeatureRepo

PYTHON_TYPES = {"string": str, "int64": int, "int32": int, "float32": float, "float64": float, "bool": bool}


def inspect(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fairlead.cli.main", "inspect", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"COLUMNS": "200", "PATH": ""})


@pytest.fixture(scope="module")
def model(repo: FeatureRepo, frames: Frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    packaged(fitted(boosted(), frames), repo, frames, path)
    return path


def instance_of(line: str) -> dict[str, Any]:
    """Return the one instance that a curl line sends."""
    words = shlex.split(line)
    assert words[0] == "curl"
    (instance,) = json.loads(words[words.index("-d") + 1])["instances"]
    return dict(instance)


def assert_hydrated_request(instance: dict[str, Any], contract: Contract) -> None:
    assert set(instance) == set(contract.key_inputs)
    for name, dtype in contract.key_inputs.items():
        assert type(instance[name]) is PYTHON_TYPES[dtype], name


def test_the_table_shows_identity_features_request_answers_and_evaluation(model: Path) -> None:
    shown = re.sub(" +", " ", inspect(str(model)).stdout)
    file = read_model(model)
    for text in (
        "arrival-delay 1",
        file.digest,
        file.contract.digest,
        file.contract.fingerprint,
        "2,000 rows, 2013-01-01T00:00:00Z to 2013-11-01T00:00:00Z",
        "scikit-learn",
        "tail_performance: by tailnum, ttl 12 h",
        " mean_delay float32 missing",
        "by origin, dest",
        "key of entity tailnum",
        "probability_late float32 probability",
        "origin=JFK",
        "roc_auc",
    ):
        assert text in shown


def test_the_curl_line_sends_the_contracts_example(model: Path) -> None:
    line = inspect(str(model)).stdout.splitlines()[-1]
    assert "http://127.0.0.1:8080/v1/models/arrival-delay:predict" in line
    assert instance_of(line) == EXAMPLE
    assert_hydrated_request(instance_of(line), read_model(model).contract)


def test_without_an_example_the_curl_line_is_made_from_training_and_evaluation(model: Path) -> None:
    contract = read_model(model).contract.model_copy(update={"example": {}})
    instance = instance_of(curl_line(contract, "https://models.example.org/"))
    assert_hydrated_request(instance, contract)
    largest = max(contract.evaluation[1:], key=lambda e: e.rows)
    assert instance["origin"] == largest.slice.removeprefix("origin=")


def test_a_contract_without_statistics_still_gives_a_request(repo: FeatureRepo, tmp_path: Path) -> None:
    write_model(tmp_path / "model.onnx", contract_of(repo.describe()))
    contract = read_model(tmp_path / "model.onnx").contract
    assert_hydrated_request(example_instance(contract), contract)
    assert "probability_late" in inspect(str(tmp_path / "model.onnx")).stdout


def test_json_is_the_whole_contract_with_digests(model: Path) -> None:
    document = json.loads(inspect(str(model), "-o", "json", "--url", "http://h:1").stdout)
    assert document["model_digest"] == sha256(model.read_bytes())
    assert Contract.model_validate(document["contract"]).digest == document["contract_digest"]
    assert "http://h:1/v1/models/arrival-delay:predict" in document["curl"]


def test_the_unit_of_the_curl_line_can_be_any_input_of_a_request(model: Path) -> None:
    assert "'x-unit-id: N14228'" in inspect(str(model), "--unit-from", "tailnum").stdout
    said = inspect(str(model), "--unit-from", "user")
    assert said.returncode == 2
    assert "--unit-from user: a request has origin, tailnum, dest, hour, weekday, distance" in said.stderr


def test_quotes_in_an_example_survive_the_shell(model: Path) -> None:
    contract = read_model(model).contract
    odd = contract.model_copy(update={"example": dict(EXAMPLE) | {"tailnum": "N'1\"$(x)"}})
    assert instance_of(curl_line(odd, "http://h"))["tailnum"] == "N'1\"$(x)"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file or directory; give a packaged .onnx file"),
        (b"", "not an ONNX file; package a model with fairlead.package()"),
        (b"# A README, not a model\n", "not an ONNX file; package a model with fairlead.package()"),
        (bytes(range(256)) * 4, "not an ONNX file; package a model with fairlead.package()"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    said = inspect(str(path))
    assert said.returncode == 2
    assert said.stdout == ""
    assert said.stderr.strip() == f"error: {path}: {message}"


def test_a_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    said = inspect(str(tmp_path))
    assert said.returncode == 2
    assert said.stderr.strip() == f"error: {tmp_path}: is a directory; give a packaged .onnx file"


def test_a_model_without_contract_says_how_to_get_one(repo: FeatureRepo, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_model(path, contract_of(repo.describe()), with_contract=False)
    said = inspect(str(path))
    assert said.returncode == 2
    assert "no contract in the model's metadata; package it with fairlead.package()" in said.stderr


def test_help_has_an_example() -> None:
    said = inspect("--help")
    assert said.returncode == 0
    assert "Example: fairlead inspect build/flights/models/boosted.onnx" in said.stdout
