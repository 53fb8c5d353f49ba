"""What is not packaged, and what the refusal says: the step, the feature or the row, and what works instead."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, SplineTransformer, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from fairlead.features.service import FeatureServiceError
from fairlead.packaging import (
    ConversionFailed,
    EstimatorRefused,
    FeaturesDiffer,
    Label,
    PackagingError,
    ParityBroken,
    Probability,
    Value,
    assemble,
    convert,
    refusals,
)
from fairlead.packaging.outputs import named_answers
from fairlead.packaging.parity import check_parity
from fairlead.packaging.rows import served
from support.estimators import boosted, encoded, fitted, logistic, ordinal, packaged
from support.frames import COLUMNS, COUNTS, NUMERIC, TEXT, Frames
from support.store import FeatureRepo


def refused(
    estimator: Any, repo: FeatureRepo, frames: Frames, path: Path, **arguments: Any
) -> pytest.ExceptionInfo[PackagingError]:
    """Package, expect a refusal, and see that the file that was there is untouched."""
    path.write_bytes(b"the better model")
    with pytest.raises(PackagingError) as caught:
        packaged(estimator, repo, frames, path, **arguments)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == b"the better model"
    return caught


def said(caught: pytest.ExceptionInfo[PackagingError]) -> str:
    return str(caught.value)


@pytest.mark.parametrize(
    "estimator",
    [
        boosted(categorical_features=[0]),
        ordinal(CalibratedClassifierCV(HistGradientBoostingClassifier(max_iter=5, categorical_features=[0]), cv=2)),
    ],
    ids=["in a pipeline", "inside a calibrator"],
)
def test_boosting_with_categorical_features_is_refused_with_the_pipeline_that_works(
    estimator: Any, repo: FeatureRepo, frames: Frames, model_path: Path
) -> None:
    caught = refused(fitted(estimator, frames), repo, frames, model_path)
    assert caught.type is EstimatorRefused
    assert "model" in said(caught).split(":", maxsplit=1)[0]
    assert "OneHotEncoder(handle_unknown='ignore', sparse_output=False)" in said(caught)


def test_categories_that_boosting_took_from_the_columns_types_are_refused_too(
    repo: FeatureRepo, frames: Frames, model_path: Path
) -> None:
    columns = frames.train[list(COLUMNS)].astype({TEXT: "category"})
    model = HistGradientBoostingClassifier(max_iter=5).fit(columns, frames.late_train)
    assert "categorical_features" in said(refused(model, repo, frames, model_path))


def test_boosting_with_categories_would_be_caught_by_parity_if_nobody_knew_it(
    repo: FeatureRepo, frames: Frames, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "refuse_unfit", lambda _: None)
    caught = refused(fitted(boosted(categorical_features=[0]), frames), repo, frames, model_path)
    assert caught.type is ParityBroken
    assert "off by 0." in said(caught)
    assert f"'{TEXT}': '" in said(caught)


@pytest.mark.parametrize(
    ("estimator", "step"),
    [
        (
            ordinal(LogisticRegression(max_iter=9), ("numbers", SimpleImputer(add_indicator=True), list(NUMERIC))),
            "columns.numbers",
        ),
        (
            ordinal(
                LogisticRegression(max_iter=9),
                ("numbers", make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), list(NUMERIC)),
            ),
            "columns.numbers.simpleimputer",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_imputer_with_indicator_is_refused_by_step(
    estimator: Any, step: str, repo: FeatureRepo, frames: Frames, model_path: Path
) -> None:
    caught = refused(fitted(estimator, frames), repo, frames, model_path)
    assert said(caught).startswith(f"{step}: SimpleImputer(add_indicator=True)")


def test_an_estimator_that_is_not_fitted_is_refused(repo: FeatureRepo, frames: Frames, model_path: Path) -> None:
    assert "call fit() before package()" in said(refused(logistic(), repo, frames, model_path))
    assert "call fit() before package()" in said(refused("a model", repo, frames, model_path))


def test_an_estimator_that_was_trained_on_an_array_is_refused(
    repo: FeatureRepo, frames: Frames, model_path: Path
) -> None:
    model = HistGradientBoostingClassifier(max_iter=5).fit(frames.train[[*NUMERIC]].to_numpy(), frames.late_train)
    assert "without column names" in said(refused(model, repo, frames, model_path))


def test_other_columns_than_the_services_are_refused_with_both_sets(
    repo: FeatureRepo, frames: Frames, model_path: Path
) -> None:
    columns = frames.train[[*NUMERIC]].rename(columns={"origin_weather__temp": "origin_weather__temperature"})
    model = HistGradientBoostingClassifier(max_iter=5).fit(columns, frames.late_train)
    caught = refused(model, repo, frames, model_path)
    assert caught.type is FeaturesDiffer
    assert "only the estimator has origin_weather__temperature" in said(caught)
    assert "only the service has departure__evening, origin_weather__temp, plane__jet" in said(caught)


def test_an_unknown_service_is_refused_with_those_that_are_known(
    repo: FeatureRepo, frames: Frames, model_path: Path
) -> None:
    with pytest.raises(FeatureServiceError, match=r"feature service large .* \(registered: small\)"):
        packaged(fitted(boosted(), frames), repo, frames, model_path, feature_service="large")


@pytest.mark.parametrize(
    ("estimator", "step"),
    [
        (
            encoded(
                LogisticRegression(),
                ("splines", make_pipeline(SimpleImputer(), SplineTransformer()), [*NUMERIC, *COUNTS]),
                ("text", "drop", [TEXT]),
            ),
            r"columns\.splines\.splinetransformer \(SplineTransformer\)",
        ),
        (
            encoded(
                LogisticRegression(),
                ("text", OneHotEncoder(min_frequency=700, handle_unknown="infrequent_if_exist"), [TEXT]),
                ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), [*NUMERIC, *COUNTS]),
            ),
            r"columns\.text \(OneHotEncoder\)",
        ),
        (CalibratedClassifierCV(logistic(), cv=2), r"model \(CalibratedClassifierCV\)"),
    ],
)
def test_a_step_without_converter_is_named(
    estimator: Any, step: str, repo: FeatureRepo, frames: Frames, model_path: Path
) -> None:
    caught = refused(fitted(estimator, frames), repo, frames, model_path)
    assert caught.type is ConversionFailed
    caught.match(f"^{step} does not convert to ONNX: ")


@pytest.mark.parametrize(
    "estimator",
    [
        ordinal(DecisionTreeClassifier(max_depth=6, random_state=0)),
        ordinal(RandomForestClassifier(10, random_state=0)),
        ordinal(HistGradientBoostingClassifier(max_iter=20), ("scaled", StandardScaler(), list(NUMERIC))),
        ordinal(CalibratedClassifierCV(HistGradientBoostingClassifier(max_iter=20), cv=2, method="isotonic")),
    ],
    ids=["tree with gaps", "forest with gaps", "trees behind a scaler", "isotonic"],
)
def test_conversions_that_are_silently_wrong_are_caught_by_parity(
    estimator: Any, repo: FeatureRepo, frames: Frames, model_path: Path
) -> None:
    caught = refused(fitted(estimator, frames), repo, frames, model_path)
    assert caught.type is ParityBroken
    caught.match(r"probability_late is [\d.e-]+ instead of [\d.e-]+ on a .* with 1e-06 allowed; \d+ of \d+ answers")


def test_a_graph_that_fails_on_missing_values_is_refused(repo: FeatureRepo, frames: Frames, model_path: Path) -> None:
    model = ordinal(HistGradientBoostingClassifier(max_iter=5), ("filled", KNNImputer(), list(NUMERIC)))
    caught = refused(fitted(model, frames), repo, frames, model_path)
    assert caught.type is ParityBroken
    caught.match(r"the ONNX file fails on .* missing: .*knn_imputer")


def test_rounding_thresholds_to_the_nearest_float32_would_be_caught(
    repo: FeatureRepo, frames: Frames, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "_with_float32_thresholds", lambda estimator: estimator)
    caught = refused(fitted(boosted(), frames), repo, frames, model_path)
    assert caught.type is ParityBroken
    assert "on a generated row" in said(caught)
    assert " beside a " in said(caught)


def test_a_model_that_cannot_take_missing_values_needs_defaults(
    repo: FeatureRepo, frames: Frames, model_path: Path
) -> None:
    whole = frames.train.dropna(subset=list(NUMERIC))
    late = frames.late_train[whole.index]
    model = encoded(
        LogisticRegression(),
        ("numbers", StandardScaler(), [*NUMERIC, *COUNTS]),
        ("text", OneHotEncoder(handle_unknown="ignore"), [TEXT]),
    ).fit(whole[list(COLUMNS)], late)
    held_out = frames.holdout.dropna(subset=list(NUMERIC))
    training = frames.training.model_copy(update={"rows": len(whole)})
    caught = refused(
        model,
        repo,
        frames,
        model_path,
        trained_on=whole,
        training=training,
        holdout=held_out,
        labels=frames.late[held_out.index],
    )
    assert caught.type is ParityBroken
    assert f"{NUMERIC[0]} missing: the estimator refuses it" in said(caught)
    assert "give defaults=" in said(caught)


def test_what_the_estimator_refuses_by_itself_is_on_record(repo: FeatureRepo, frames: Frames, model_path: Path) -> None:
    model = packaged(fitted(logistic(), frames), repo, frames, model_path)
    assert {f"{name} = inf" for name in NUMERIC} <= set(model.parity.refused)
    assert packaged(fitted(boosted(), frames), repo, frames, model_path).parity.refused == ()


def test_unknown_categories_that_the_encoder_refuses_are_on_record(
    repo: FeatureRepo, frames: Frames, model_path: Path
) -> None:
    strict = encoded(HistGradientBoostingClassifier(max_iter=5), ("text", OrdinalEncoder(), [TEXT]))
    assert f"{TEXT} unknown" in packaged(fitted(strict, frames), repo, frames, model_path).parity.refused


def swapped(model: bytes, one: str, other: str) -> bytes:
    """Return a file in which two inputs have each other's name."""
    graph = onnx.load_model_from_string(model)
    names = {one: other, other: one}
    for node in graph.graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = names.get(name, name)
    return bytes(graph.SerializeToString())


def test_two_features_swapped_in_the_file_are_detected(repo: FeatureRepo, frames: Frames, model_path: Path) -> None:
    estimator = fitted(boosted(), frames)
    contract = packaged(estimator, repo, frames, model_path).contract
    rows = served(frames.holdout, contract.features, list(COLUMNS), "rows")
    answers = named_answers(estimator, "probability_late")
    file = model_path.read_bytes()
    check_parity(estimator, file, contract, rows=rows, answers=answers, tolerance=1e-6)
    wrong = swapped(file, "origin_weather__wind", "tail_performance__mean_delay")
    with pytest.raises(ParityBroken, match=r"\d{4} of \d{4} answers differ"):
        check_parity(estimator, wrong, contract, rows=rows, answers=answers, tolerance=1e-6)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({}, "name at least one"),
        ({"p": Probability("late")}, r"output p: 'late' is not among the estimator's classes"),
        ({"delay": Value()}, "output delay: Value needs a regressor"),
        ("two words", r"Output: name: .*given: 'two words'"),
        ({"plane__seats": Label(), "p": Probability(True)}, "plane__seats"),
    ],
)
def test_outputs_that_the_estimator_cannot_give_are_refused(
    outputs: Any, message: str, repo: FeatureRepo, frames: Frames, model_path: Path
) -> None:
    refused(fitted(boosted(), frames), repo, frames, model_path, outputs=outputs).match(message)


def test_a_classifier_without_probabilities_is_refused(repo: FeatureRepo, frames: Frames, model_path: Path) -> None:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    model = encoded(LinearSVC(), ("numbers", numbers, list(NUMERIC)), ("text", "drop", [TEXT]))
    assert "has no predict_proba" in said(refused(fitted(model, frames), repo, frames, model_path))


def test_an_example_that_is_no_request_is_refused(repo: FeatureRepo, frames: Frames, model_path: Path) -> None:
    caught = refused(fitted(boosted(), frames), repo, frames, model_path, example={"origin": "EWR"})
    assert "the example has origin, a request has" in said(caught)


def test_walking_finds_estimators_wherever_they_hide(frames: Frames) -> None:
    model = fitted(ordinal(CalibratedClassifierCV(HistGradientBoostingClassifier(max_iter=2), cv=2)), frames)
    found = [type(step).__name__ for _, step in refusals.walk(model)]
    assert found.count("HistGradientBoostingClassifier") >= 2
    assert "OrdinalEncoder" in found
    assert np.unique([path for path, _ in refusals.walk(model) if path == "columns.text"]).size == 1


def test_text_that_is_missing_needs_a_default(repo: FeatureRepo, frames: Frames, model_path: Path) -> None:
    gaps = frames.holdout.assign(**{TEXT: frames.holdout[TEXT].where(frames.holdout.index > 3, None)})
    packaged(fitted(boosted(), frames), repo, frames, model_path, holdout=gaps)
    assert pd.isna(gaps[TEXT]).sum() == 4
