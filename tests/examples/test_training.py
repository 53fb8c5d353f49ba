"""Training the flights models on made-up rows: what is packaged, what is kept, and what is not done twice."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from feast import FeatureStore
from typer.testing import CliRunner

from fairlead.contract import Contract, sha256
from fairlead.features.service import describe
from fairlead.policy import Action, FeatureState
from flights import fitting
from flights.fitting import Months
from flights.manifest import Deployed, ManifestError, deployed, set_digest
from flights.paths import FEATURE_REPO
from flights.runs import SERVICES, RunRecord, read_record, record_path, write_record
from flights.store import apply, open_store
from flights.training import app

RUN = sha256(b"run")
MANIFEST = """\
# Kept: what this file is for.
spec:
  variants:
  - name: logistic
    role: Control # kept: takes the rest
    model: {uri: models/logistic.onnx, digest: "sha256:0"}

  - name: boosted
    role: Treatment
    model:
      uri: models/boosted.onnx
      digest: 'sha256:1' # kept: quotes too
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "modeldeployment.yaml"
    path.write_text(MANIFEST)
    return path


def test_a_variants_model_is_found_beside_the_manifest(manifest: Path) -> None:
    assert deployed(manifest, "logistic") == Deployed(manifest.parent / "models" / "logistic.onnx", "sha256:0")


def test_a_digest_is_written_and_everything_else_stays(manifest: Path) -> None:
    assert set_digest(manifest, "boosted", "sha256:2")
    assert manifest.read_text() == MANIFEST.replace("sha256:1", "sha256:2")
    assert set_digest(manifest, "logistic", "sha256:3")
    assert manifest.read_text() == MANIFEST.replace("sha256:1", "sha256:2").replace("sha256:0", "sha256:3")


def test_the_real_manifest_changes_in_one_line(tmp_path: Path) -> None:
    real = Path(__file__).parents[2] / "examples" / "flights" / "modeldeployment.yaml"
    copy = tmp_path / "modeldeployment.yaml"
    copy.write_text(real.read_text())
    set_digest(copy, "boosted", sha256(b"another"))
    before, after = real.read_text().splitlines(), copy.read_text().splitlines()
    assert len(before) == len(after)
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 1


def test_an_equal_digest_leaves_the_file_untouched(manifest: Path) -> None:
    before = manifest.stat()
    assert not set_digest(manifest, "boosted", "sha256:1")
    assert (manifest.stat().st_mtime_ns, manifest.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spec: [", "not YAML"),
        ("spec: {}", "spec.variants has no boosted"),
        ("", "spec.variants has no boosted"),
        (MANIFEST.replace("uri: models/boosted.onnx", "url: x"), r"spec.variants\[boosted\].model.uri is missing"),
    ],
)
def test_a_manifest_that_lacks_something_is_refused_by_field(text: str, message: str, manifest: Path) -> None:
    manifest.write_text(text)
    with pytest.raises(ManifestError, match=message):
        deployed(manifest, "boosted")


def test_a_model_is_intact_only_with_the_manifests_digest(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    assert not Deployed(path, sha256(b"model")).intact
    path.write_bytes(b"model")
    assert Deployed(path, sha256(b"model")).intact
    assert not Deployed(path, sha256(b"other")).intact


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The flights definitions, registered in a folder of the test's own."""
    repo = tmp_path_factory.mktemp("flights")
    for file in [*FEATURE_REPO.glob("*.py"), *FEATURE_REPO.glob("*.yaml")]:
        shutil.copy(file, repo)
    (repo / "data").mkdir()
    opened = open_store(repo)
    apply(opened)
    return opened


def make_months(store: FeatureStore, name: str, *, rows: int = 1500, signal: float = 1.0, seed: int = 0) -> Months:
    """Return made-up rows of a model; ``signal`` is how much the features say about the label."""
    rng = np.random.default_rng(seed)
    features = [feature.input for feature in describe(store, SERVICES[name]).features]
    frame = pd.DataFrame({feature: rng.normal(0, 1, rows).astype(np.float32) for feature in features})
    frame["departure__hour"] = rng.integers(5, 24, rows)
    frame["departure__weekday"] = rng.integers(0, 7, rows)
    telling = next(feature for feature in features if feature.startswith("carrier_week__"))
    score = signal * (frame[telling] + frame["departure__hour"] / 12 - 1)
    frame["late"] = (score + rng.normal(0, 1, rows) > 0.5).astype(int)
    for column in (feature for feature in features if not feature.startswith("departure__")):
        frame.loc[rng.random(rows) < 0.2, column] = np.nan
    frame["tailnum"] = "N14228"
    frame["origin"] = rng.choice(["EWR", "JFK"], rows)
    frame["dest"] = "IAH"
    frame["carrier"] = "UA"
    cut = rows * 2 // 3
    return Months(frame[:cut], frame[cut:].reset_index(drop=True))


def trained(name: str, months: Months, store: FeatureStore, manifest: Path) -> RunRecord:
    return fitting.train(name, RUN, months, store=store, manifest=manifest)


@pytest.mark.parametrize("name", list(SERVICES))
def test_the_first_model_has_to_beat_the_base_rate_and_is_then_named_by_the_manifest(
    name: str, store: FeatureStore, manifest: Path
) -> None:
    record = trained(name, make_months(store, name), store, manifest)
    served = deployed(manifest, name)
    assert record.packaged
    assert record.rival == "base rate"
    assert record.metrics["brier"] < record.rival_brier
    assert served.intact
    assert record.onnx_digest == record.serving_digest == served.digest
    assert record.parity is not None
    assert record.parity.largest_error <= 1e-6
    assert [piece.slice for piece in record.slices] == ["origin=EWR", "origin=JFK", "carrier=UA"]


@pytest.mark.parametrize("name", list(SERVICES))
def test_training_again_gives_the_same_file(name: str, store: FeatureStore, manifest: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "modeldeployment.yaml"
    other.parent.mkdir()
    other.write_text(MANIFEST)
    first = trained(name, make_months(store, name), store, manifest)
    assert trained(name, make_months(store, name), store, other).onnx_digest == first.onnx_digest


def test_a_model_that_says_nothing_is_recorded_and_not_packaged(store: FeatureStore, manifest: Path) -> None:
    record = trained("boosted", make_months(store, "boosted", signal=0), store, manifest)
    assert not record.packaged
    assert (record.onnx_digest, record.serving_digest, record.parity) == (None, None, None)
    assert manifest.read_text() == MANIFEST
    assert not deployed(manifest, "boosted").path.exists()


def test_a_candidate_that_is_not_better_leaves_what_is_served(store: FeatureStore, manifest: Path) -> None:
    months = make_months(store, "logistic")
    first = trained("logistic", months, store, manifest)
    served = deployed(manifest, "logistic")
    before = (manifest.read_text(), served.path.stat().st_mtime_ns)
    again = trained("logistic", months, store, manifest)
    assert not again.packaged
    assert again.rival == "served model"
    assert again.rival_digest == again.serving_digest == first.onnx_digest
    assert again.rival_brier == pytest.approx(first.metrics["brier"], abs=1e-6)
    assert (manifest.read_text(), served.path.stat().st_mtime_ns) == before


def test_a_better_candidate_replaces_what_is_served(store: FeatureStore, manifest: Path) -> None:
    months = make_months(store, "logistic")
    weak = trained("logistic", replace(months, train=months.train[:150]), store, manifest)
    better = trained("logistic", months, store, manifest)
    assert better.packaged
    assert better.rival_digest == weak.onnx_digest
    assert deployed(manifest, "logistic").digest == better.onnx_digest != weak.onnx_digest


def test_a_file_that_the_manifest_does_not_mean_is_no_rival(store: FeatureStore, manifest: Path) -> None:
    months = make_months(store, "logistic")
    trained("logistic", months, store, manifest)
    set_digest(manifest, "logistic", sha256(b"another file"))
    assert trained("logistic", months, store, manifest).rival == "base rate"


def test_a_served_model_whose_features_have_changed_is_no_rival(store: FeatureStore, manifest: Path) -> None:
    months = make_months(store, "logistic")
    trained("logistic", months, store, manifest)
    service = describe(store, SERVICES["logistic"])
    served = deployed(manifest, "logistic")
    assert fitting.rival_of(served, service, months).digest == served.digest
    changed = replace(service, features=tuple(reversed(service.features)))
    assert fitting.rival_of(served, changed, months).digest is None


@pytest.mark.parametrize("name", list(SERVICES))
def test_a_feature_that_is_missing_online_is_what_it_was_in_training(
    name: str, store: FeatureStore, manifest: Path
) -> None:
    trained(name, make_months(store, name), store, manifest)
    session = onnxruntime.InferenceSession(deployed(manifest, name).path, providers=["CPUExecutionProvider"])
    contract = Contract.from_metadata(session.get_modelmeta().custom_metadata_map, name)
    states = [state for state in FeatureState if state is not FeatureState.PRESENT]
    for feature in (feature for feature in contract.features if not feature.on_demand):
        assert feature.default is None
        assert {feature.policy.action(state) for state in states} == {Action.DEFAULT}
    assert contract.example == {
        "tailnum": "N14228",
        "origin": contract.example["origin"],
        "dest": "IAH",
        "carrier": "UA",
        "hour": contract.example["hour"],
        "weekday": contract.example["weekday"],
        "distance": contract.example["distance"],
    }


def test_a_run_record_survives_its_file(store: FeatureStore, manifest: Path, tmp_path: Path) -> None:
    record = trained("logistic", make_months(store, "logistic", rows=600), store, manifest)
    path = record_path(tmp_path / "runs", "logistic", RUN)
    assert path.name == f"logistic-{RUN.removeprefix('sha256:')[:16]}.json"
    assert read_record(path) is None
    write_record(path, record)
    assert read_record(path) == record
    path.write_text("{}")
    assert read_record(path) is None


def test_a_missing_manifest_is_said_in_one_line(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["--manifest", str(tmp_path / "none.yaml")])
    assert said.exit_code == 1
    assert f"train: {tmp_path}/none.yaml: cannot be read" in said.output


def test_help_has_an_example() -> None:
    said = CliRunner().invoke(app, ["--help"])
    assert said.exit_code == 0
    assert "Example: python examples/flights/train.py --model boosted" in said.output
