"""What must hold before a model leaves this folder: `make test`, after `make train`."""

from pathlib import Path

import yaml

from fairlead.cli.inspect import read_model

HERE = Path(__file__).parent
A_COIN = 0.25
MANIFESTS = (HERE / "modeldeployment.yaml", HERE / "cluster" / "modeldeployment.yaml")


def test_the_manifests_have_the_digest_of_the_model_that_was_trained() -> None:
    model = read_model(HERE / "build" / "baseline.onnx")
    for manifest in MANIFESTS:
        [variant] = yaml.safe_load(manifest.read_text())["spec"]["variants"]
        assert variant["model"]["digest"] == model.digest


def test_the_model_is_better_than_a_coin() -> None:
    scores = read_model(HERE / "build" / "baseline.onnx").contract.evaluation[0]
    assert scores.metrics["brier"] < A_COIN
