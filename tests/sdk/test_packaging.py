"""Packaging: what is in the file, that it answers as the estimator does, and that its bytes can be made again."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, TargetEncoder

from fairlead.contract import Contract, sha256
from fairlead.packaging import FeaturesDiffer, Label, Probability, RowsRefused
from fairlead.packaging.convert import convert
from fairlead.packaging.outputs import named_answers
from fairlead.packaging.rows import feed, served
from fairlead.policy import Action, Policy
from support.estimators import EXAMPLE, boosted, encoded, fitted, logistic, ordinal, packaged
from support.frames import COLUMNS, COUNTS, DEFAULTS, NUMERIC, TEXT, Frames
from support.store import FeatureRepo

BRIER = 0.2


def answers_of(path: Path, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(inputs)), strict=True))


def imputed(model: Any) -> Any:
    return ordinal(model, ("numbers", SimpleImputer(), list(NUMERIC)))


@pytest.mark.parametrize(
    "estimator",
    [
        logistic(),
        boosted(),
        imputed(RandomForestClassifier(20, random_state=0)),
        imputed(GradientBoostingClassifier(n_estimators=20, random_state=0)),
        ordinal(CalibratedClassifierCV(HistGradientBoostingClassifier(max_iter=20, random_state=0), cv=2)),
        encoded(
            LogisticRegression(max_iter=500),
            ("text", TargetEncoder(cv=KFold(3)), [TEXT]),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), [*NUMERIC, *COUNTS]),
        ),
    ],
    ids=["logistic", "boosted", "forest", "gradient", "calibrated", "target"],
)
def test_the_file_answers_as_the_estimator_does(
    estimator: Any, repo: FeatureRepo, frames: Frames, model_path: Path
) -> None:
    model = packaged(fitted(clone(estimator), frames), repo, frames, model_path)
    assert model.parity.largest_error <= 1e-6
    assert model.parity.held_out == len(frames.holdout)
    assert model.parity.generated > 300


def test_the_graph_has_one_input_per_feature_and_the_named_output(
    repo: FeatureRepo, frames: Frames, model_path: Path
) -> None:
    contract = packaged(fitted(logistic(), frames), repo, frames, model_path).contract
    session = onnxruntime.InferenceSession(model_path, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == [f.input for f in repo.describe().features]
    assert {tuple(i.shape) for i in session.get_inputs()} == {("n", 1)}
    types = {"float32": "tensor(float)", "int64": "tensor(int64)", "bool": "tensor(bool)", "string": "tensor(string)"}
    assert [i.type for i in session.get_inputs()] == [types[f.dtype] for f in contract.features]
    assert [(o.name, o.shape, o.type) for o in session.get_outputs()] == [("probability_late", ["n"], "tensor(float)")]


def test_the_contract_says_where_the_model_comes_from_and_what_it_needs(
    repo: FeatureRepo, frames: Frames, model_path: Path
) -> None:
    model = packaged(fitted(boosted(), frames), repo, frames, model_path)
    session = onnxruntime.InferenceSession(model_path, providers=["CPUExecutionProvider"])
    contract = Contract.from_metadata(session.get_modelmeta().custom_metadata_map, "model.onnx")
    assert contract == model.contract
    assert model.digest == sha256(model_path.read_bytes())
    assert contract.fingerprint == repo.describe().fingerprint
    assert set(contract.key_inputs) == set(EXAMPLE) == set(contract.example)
    assert contract.training == frames.training
    assert {"scikit-learn", "skl2onnx", "onnxruntime", "fairlead", "python"} <= set(contract.packages)
    assert {f.input: f.ttl_s for f in contract.features}["tail_performance__mean_delay"] == 12 * 3600
    assert {f.input: f.default for f in contract.features if not f.dtype.startswith("float") and not f.on_demand} == (
        DEFAULTS
    )


def test_the_evaluation_is_of_the_held_out_rows_by_slice(repo: FeatureRepo, frames: Frames, model_path: Path) -> None:
    contract = packaged(fitted(boosted(), frames), repo, frames, model_path).contract
    assert [e.slice for e in contract.evaluation] == ["all", "origin=EWR", "origin=JFK", "origin=LGA"]
    everything, *slices = contract.evaluation
    assert everything.rows == len(frames.holdout) == sum(e.rows for e in slices)
    weighted = sum(e.rows * e.metrics["brier"] for e in slices) / everything.rows
    assert everything.metrics["brier"] == pytest.approx(weighted)
    assert everything.metrics["brier"] < BRIER
    assert everything.metrics["mean_actual"] == pytest.approx(frames.late.mean())
    assert 0.5 < everything.metrics["roc_auc"] < 1


def test_statistics_are_of_the_training_rows(repo: FeatureRepo, frames: Frames, model_path: Path) -> None:
    contract = packaged(fitted(boosted(), frames), repo, frames, model_path).contract
    by_name = {f.input: f.statistics for f in contract.features}
    wind, maker = by_name["origin_weather__wind"], by_name[TEXT]
    assert wind is not None
    assert maker is not None
    values = frames.train["origin_weather__wind"]
    assert (wind.count, wind.missing) == (len(values), int(values.isna().sum()))
    assert wind.mean == pytest.approx(values.mean())
    assert wind.quantiles["0.5"] == pytest.approx(values.median())
    assert maker.categories == frames.train[TEXT].value_counts().to_dict()


def test_the_same_arguments_give_the_same_bytes(repo: FeatureRepo, frames: Frames, tmp_path: Path) -> None:
    first = packaged(fitted(logistic(), frames), repo, frames, tmp_path / "a.onnx")
    second = packaged(fitted(logistic(), frames), repo, frames, tmp_path / "b.onnx")
    assert first.digest == second.digest


def test_another_process_with_another_hash_seed_gives_the_same_bytes(
    repo: FeatureRepo, frames: Frames, tmp_path: Path
) -> None:
    here = packaged(fitted(logistic(), frames), repo, frames, tmp_path / "here.onnx")
    program = (
        "import sys; from pathlib import Path; from feast import FeatureStore\n"
        "from support.estimators import fitted, logistic, packaged\n"
        "from support.frames import make_frames\n"
        "from support.store import FeatureRepo\n"
        "repo = FeatureRepo(Path(sys.argv[1]), FeatureStore(repo_path=sys.argv[1])); frames = make_frames()\n"
        "print(packaged(fitted(logistic(), frames), repo, frames, Path(sys.argv[2])).digest)\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[1])}
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(repo.path), str(tmp_path / "there.onnx")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split()[-1] == here.digest


def test_an_estimator_without_column_transformer_gets_its_columns_by_name(
    repo: FeatureRepo, frames: Frames, model_path: Path
) -> None:
    columns = list(reversed(frames.train.columns.drop(["origin", TEXT])))
    shuffled = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(frames.train[columns], frames.late_train)
    with pytest.raises(FeaturesDiffer, match=f"only the service has {TEXT}"):
        packaged(shuffled, repo, frames, model_path)


def test_a_regressor_answers_with_its_value(repo: FeatureRepo, frames: Frames, model_path: Path) -> None:
    delay_train = frames.train["departure__distance_km"].fillna(0).to_numpy() / 100
    delay = frames.holdout["departure__distance_km"].fillna(0).to_numpy() / 100
    model = ordinal(HistGradientBoostingRegressor(max_iter=20, random_state=0))
    model.fit(frames.train[list(COLUMNS)], delay_train)
    contract = packaged(model, repo, frames, model_path, outputs="delay_min", labels=delay).contract
    assert contract.outputs[0].meaning == "value"
    assert contract.evaluation[0].metrics["absolute_error"] < 2
    ridge = encoded(
        Ridge(), ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), [*NUMERIC]), ("text", "drop", [TEXT])
    ).fit(frames.train[list(COLUMNS)], delay_train)
    assert packaged(ridge, repo, frames, model_path, outputs="delay_min", labels=delay).parity.largest_error <= 1e-6


def test_a_multiclass_model_answers_with_a_probability_per_class_and_a_label(
    repo: FeatureRepo, frames: Frames, model_path: Path
) -> None:
    kinds = np.where(frames.late_train, "late", np.where(frames.train["plane__jet"], "fine", "slow"))
    held_out = np.where(frames.late, "late", np.where(frames.holdout["plane__jet"], "fine", "slow"))
    model = logistic().fit(frames.train[list(COLUMNS)], kinds)
    outputs = {"p_slow": Probability("slow"), "p_late": Probability("late"), "kind": Label()}
    contract = packaged(model, repo, frames, model_path, outputs=outputs, labels=held_out).contract
    rows = served(frames.holdout, contract.features, list(COLUMNS), "rows")
    answers = answers_of(model_path, feed(rows))
    expected = dict(zip(model.classes_, model.predict_proba(rows).T, strict=True))
    np.testing.assert_allclose(answers["p_slow"], expected["slow"], atol=1e-6)
    np.testing.assert_allclose(answers["p_late"], expected["late"], atol=1e-6)
    assert list(answers["kind"]) == list(model.predict(rows))
    assert [o.meaning for o in contract.outputs] == ["probability", "probability", "label"]
    assert contract.evaluation[0].metrics["mean_actual"] == pytest.approx((held_out == "slow").mean())


def test_small_integers_are_widened_inside_the_graph() -> None:
    rows = pd.DataFrame({"plane__seats": np.arange(200, dtype=np.int32)})
    model = HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(rows, rows["plane__seats"] > 120)
    graph = convert(model, {"plane__seats": "int32"}, named_answers(model, "p"), rows)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].type == "tensor(int32)"
    np.testing.assert_allclose(session.run(None, feed(rows))[0], model.predict_proba(rows)[:, 1], atol=1e-6)


def test_policies_are_given_by_feature_before_view(repo: FeatureRepo, frames: Frames, model_path: Path) -> None:
    policies = {
        "origin_weather": Policy(stale=Action.USE),
        "origin_weather__wind": Policy(stale=Action.REJECT),
    }
    contract = packaged(fitted(boosted(), frames), repo, frames, model_path, policies=policies).contract
    stale = {f.input: f.policy.stale for f in contract.features}
    assert stale["origin_weather__temp"] is Action.USE
    assert stale["origin_weather__wind"] is Action.REJECT
    assert stale["plane__seats"] is Action.DEFAULT


def test_a_default_stands_in_for_missing_values_in_the_evaluation(
    repo: FeatureRepo, frames: Frames, model_path: Path
) -> None:
    filled = frames.train.fillna(dict.fromkeys(NUMERIC, 0.0))
    model = ordinal(LogisticRegression(max_iter=2000)).fit(filled[list(COLUMNS)], frames.late_train)
    contract = packaged(
        model, repo, frames, model_path, defaults=DEFAULTS | dict.fromkeys(NUMERIC, 0.0), trained_on=filled
    ).contract
    assert {f.default for f in contract.features if f.input in NUMERIC} == {0.0}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"defaults": {}}, FeaturesDiffer, "tail_performance__flights: int64 cannot be missing"),
        ({"defaults": DEFAULTS | {"plane__wings": 1}}, FeaturesDiffer, "defaults: plane__wings is not among"),
        ({"defaults": DEFAULTS | {TEXT: 3}}, FeaturesDiffer, f"{TEXT}: the default 3 is not a string"),
        (
            {"defaults": DEFAULTS | {"plane__seats": True}},
            FeaturesDiffer,
            "plane__seats: the default True is not a int64",
        ),
        ({"defaults": DEFAULTS | {NUMERIC[0]: 1e300}}, FeaturesDiffer, "not a finite float32"),
        ({"policies": {"planes": Policy()}}, FeaturesDiffer, "policies: planes is not among"),
        ({"slices": ("planet",)}, RowsRefused, "no column planet"),
        ({"slices": ("departure__distance_km",)}, RowsRefused, "at most 50 are slices"),
        ({"labels": [True]}, RowsRefused, "labels: 1 for 1000 held-out rows"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(
    *,
    arguments: dict[str, Any],
    error: type[Exception],
    message: str,
    repo: FeatureRepo,
    frames: Frames,
    model_path: Path,
) -> None:
    with pytest.raises(error, match=message):
        packaged(fitted(boosted(), frames), repo, frames, model_path, **arguments)
    assert not model_path.exists()


def test_rows_that_lack_a_feature_are_refused_by_name(repo: FeatureRepo, frames: Frames, model_path: Path) -> None:
    model = fitted(boosted(), frames)
    with pytest.raises(RowsRefused, match=f"training rows lack {TEXT}"):
        packaged(model, repo, frames, model_path, trained_on=frames.train.drop(columns=TEXT))
    with pytest.raises(RowsRefused, match=f"held-out rows lack the features {TEXT}"):
        packaged(model, repo, frames, model_path, holdout=frames.holdout.drop(columns=TEXT))
    with pytest.raises(RowsRefused, match=r"training\.rows says 2000, and trained_on has 10"):
        packaged(model, repo, frames, model_path, trained_on=frames.train[:10])


def test_a_file_is_replaced_in_one_step_and_leaves_nothing_beside_it(
    repo: FeatureRepo, frames: Frames, model_path: Path
) -> None:
    model_path.write_bytes(b"older")
    packaged(fitted(boosted(), frames), repo, frames, model_path)
    assert onnx.load(model_path).producer_name == "fairlead"
    assert [path.name for path in model_path.parent.iterdir()] == [model_path.name]
