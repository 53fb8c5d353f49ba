"""Training on the real flights, into a folder of its own: quality, one record per run, and nothing done twice."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from fairlead.contract import Contract
from fairlead.packaging.rows import feed, served
from flights import features
from flights.dataset import training_set
from flights.manifest import deployed
from flights.runs import SERVICES, RunRecord, read_record
from flights.training import MANIFEST

TRAIN = Path(__file__).parents[2] / "examples" / "flights" / "train.py"
MOST_BRIER = {"logistic": 0.166, "boosted": 0.156}
"""On November and December; the base rate's is 0.192."""

pytestmark = [pytest.mark.flights, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest and the models that training made beside it, from the real features."""
    features.build()
    folder = tmp_path_factory.mktemp("training")
    text = MANIFEST.read_text().replace("../../build/flights/", "")
    (folder / "modeldeployment.yaml").write_text(text)
    train(folder)
    return folder


def train(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(TRAIN),
        "--manifest",
        str(folder / "modeldeployment.yaml"),
        "--runs",
        str(folder / "runs"),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def records_of(folder: Path) -> dict[str, RunRecord]:
    found = [record for path in (folder / "runs").iterdir() if (record := read_record(path))]
    return {record.model: record for record in found}


def test_each_run_leaves_a_record_and_the_manifest_names_the_file(folder: Path) -> None:
    records = records_of(folder)
    assert set(records) == set(SERVICES)
    for name, record in records.items():
        model = deployed(folder / "modeldeployment.yaml", name)
        assert model.intact
        assert record.packaged
        assert record.onnx_digest == model.digest
        assert record.parity is not None
        assert record.parity.largest_error <= 1e-6


@pytest.mark.parametrize("name", list(SERVICES))
def test_the_models_are_worth_serving(name: str, folder: Path) -> None:
    path = deployed(folder / "modeldeployment.yaml", name).path
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    contract = Contract.from_metadata(session.get_modelmeta().custom_metadata_map, name)
    flights = training_set(SERVICES[name], datetime(2013, 11, 1, tzinfo=UTC), datetime(2014, 1, 2, tzinfo=UTC))
    rows = served(flights, contract.features, contract.tensor_inputs, "flights")
    probability = session.run(["probability_late"], feed(rows))[0]
    brier = float(np.mean((probability - flights["late"].to_numpy()) ** 2))
    assert brier <= MOST_BRIER[name]


def test_a_second_run_does_nothing_and_is_quick(folder: Path) -> None:
    before = (folder / "modeldeployment.yaml").read_text()
    began = time.monotonic()
    said = train(folder)
    assert time.monotonic() - began < 10
    assert said.stdout.count("up to date") == len(SERVICES)
    assert (folder / "modeldeployment.yaml").read_text() == before
    assert len(list((folder / "runs").iterdir())) == len(SERVICES)
