"""Package a scikit-learn estimator and a Feast feature service as one ONNX file."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from onnx import helper
from pydantic import ValidationError

from fairlead.contract import METADATA_KEY, Contract, DType, Evaluation, Feature, Output, Scalar, Training, sha256
from fairlead.features.service import ServiceDescription, ServiceFeature, describe
from fairlead.packaging.convert import convert, graph_dtype, output_dtypes
from fairlead.packaging.errors import FeaturesDiffer, PackagingError, RowsRefused
from fairlead.packaging.evaluation import evaluate
from fairlead.packaging.outputs import Answer, NamedAnswer, Probability, named_answers
from fairlead.packaging.parity import Parity, check_parity, run, session_of
from fairlead.packaging.refusals import refuse_other_columns, refuse_unfit
from fairlead.packaging.rows import served
from fairlead.packaging.statistics import statistics_of
from fairlead.policy import Policy

if TYPE_CHECKING:
    from feast import FeatureStore

TOLERANCE = 1e-6
"""Largest difference between estimator and file that is allowed."""

_PACKAGES = ("fairlead", "feast", "numpy", "onnx", "onnxruntime", "pandas", "scikit-learn", "skl2onnx")


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model file that was written."""

    path: Path
    digest: str
    """``sha256:…`` of the file."""
    contract: Contract
    parity: Parity


@dataclass(frozen=True, slots=True)
class _Rows:
    """Training and held-out rows, each with every feature by full name."""

    trained_on: pd.DataFrame
    holdout: pd.DataFrame
    labels: NDArray[Any]


def package(
    estimator: Any,
    *,
    store: FeatureStore,
    feature_service: str,
    name: str,
    version: str,
    outputs: str | Mapping[str, Answer],
    path: Path,
    trained_on: pd.DataFrame,
    training: Training,
    holdout: pd.DataFrame,
    labels: ArrayLike,
    slices: Sequence[str] = (),
    defaults: Mapping[str, Scalar | None] | None = None,
    policies: Mapping[str, Policy] | None = None,
    example: Mapping[str, Scalar] | None = None,
    tolerance: float = TOLERANCE,
) -> PackagedModel:
    """Write one ONNX file that a server can bind, hydrate and judge by itself.

    The graph has one input per feature of the service, ``view__feature`` of shape [n, 1] (floats as float32), and one
    output per entry of ``outputs``, of shape [n]. The contract lies in its metadata. The same arguments and package
    versions give the same bytes. The file appears at ``path`` in one step, after every check; a refusal leaves what
    was there.

    Args:
        estimator: A fitted classifier or regressor, trained on a DataFrame with full feature names. A Pipeline is
            outermost; its ColumnTransformer, if any, is its first step.
        store: The Feast store whose registry has the service.
        feature_service: Name of the service; its features are the estimator's columns.
        name: Logical model name, what clients call.
        version: Version of the model.
        outputs: Answers by output name (:class:`Probability`, :class:`Label`, :class:`Value`). A bare name stands for
            the probability of a binary classifier's second class, or a regressor's value. The first is evaluated.
        path: Where the file goes; its folder is made.
        trained_on: The training rows, [rows, features], for each feature's statistics.
        training: Window, row count and digest of the source data.
        holdout: Rows the estimator has not seen, [n, features] and any column named in ``slices``. Parity is checked
            on up to 20,000 of them.
        labels: What happened on them, shape [n]: classes for a classifier, numbers for a regressor.
        slices: Columns of ``holdout`` by whose values the evaluation is repeated, each with at most 50 values.
        defaults: What the model sees for a feature that is missing, by full name. Not listed: a missing value (NaN),
            which floats alone can be.
        policies: What to do per feature state, by full feature name or by view; ``Policy()`` for the rest.
        example: A hydrated request for people to try: a value for each join key and request feature.
        tolerance: Largest difference between estimator and file: absolute for probabilities, relative to
            the largest held-out value for values; labels must be equal.

    Raises:
        PackagingError: See :mod:`fairlead.packaging.errors`; each message names the step, feature or row.
        FeatureServiceError: The registry has no such service, or it has something a contract cannot express.
    """
    refuse_unfit(estimator)
    service = describe(store, feature_service)
    refuse_other_columns(estimator.feature_names_in_, [f.input for f in service.features], feature_service)
    answers = named_answers(estimator, outputs)
    rows = _Rows(trained_on, holdout, np.asarray(labels).reshape(-1))
    _refuse_lengths(rows, training)
    features = _features(service, rows.trained_on, defaults or {}, policies or {})
    ready = served(holdout, features, [str(c) for c in estimator.feature_names_in_], "held-out rows")
    graph = convert(estimator, {f.input: f.dtype for f in features}, answers, ready.head(100))
    with _breaches_named():
        contract = Contract(
            model=name,
            version=version,
            project=service.project,
            feature_service=feature_service,
            fingerprint=service.fingerprint,
            entities=service.entities,
            request_features=service.request_features,
            features=features,
            outputs=_outputs(answers, output_dtypes(graph)),
            training=training,
            packages={package: version_of(package) for package in _PACKAGES} | {"python": platform.python_version()},
            evaluation=_evaluation(graph, answers[0], ready, rows, slices),
            example=dict(example or {}),
        )
    model = with_contract(graph, contract)
    parity = check_parity(estimator, model, contract, rows=ready, answers=answers, tolerance=tolerance)
    _write(path, model)
    return PackagedModel(path, sha256(model), contract, parity)


def with_contract(graph: onnx.ModelProto, contract: Contract) -> bytes:
    """Return ``graph`` serialized with ``contract`` in its metadata; the same two always give the same bytes."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    model.producer_name = "fairlead"
    model.producer_version = contract.packages["fairlead"]
    model.domain = "dev.fairlead"
    model.doc_string = f"{contract.model} {contract.version}: {', '.join(o.name for o in contract.outputs)}"
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _features(
    service: ServiceDescription,
    trained_on: pd.DataFrame,
    defaults: Mapping[str, Scalar | None],
    policies: Mapping[str, Policy],
) -> tuple[Feature, ...]:
    names = {f.input for f in service.features}
    views = {f.view for f in service.features}
    _refuse_unknown("defaults", set(defaults) - names, names)
    _refuse_unknown("policies", set(policies) - names - views, names | views)
    absent = sorted(names - set(trained_on.columns))
    if absent:
        raise RowsRefused(f"trained_on: the training rows lack {', '.join(absent)}; build them with full feature names")
    return tuple(
        _feature(
            feature,
            trained_on[feature.input],
            defaults.get(feature.input),
            policies.get(feature.input, policies.get(feature.view, Policy())),
        )
        for feature in service.features
    )


def _feature(feature: ServiceFeature, values: pd.Series[Any], default: Scalar | None, policy: Policy) -> Feature:
    dtype = graph_dtype(feature.input, feature.dtype)
    described = Feature(
        view=feature.view,
        name=feature.name,
        dtype=dtype,
        on_demand=feature.on_demand,
        join_keys=feature.join_keys,
        ttl_s=feature.ttl_s,
        default=_default(feature.input, dtype, default),
        policy=policy,
        statistics=statistics_of(values, dtype),
    )
    if described.needs_default:
        raise FeaturesDiffer(
            f"{feature.input}: {dtype} cannot be missing, and its policy may ask for a default; give "
            f"defaults={{'{feature.input}': …}}, or reject every state by policy"
        )
    return described


def _default(name: str, dtype: DType, default: Scalar | None) -> Scalar | None:
    kinds: dict[str, tuple[type, ...]] = {
        "string": (str,),
        "bool": (bool,),
        "int64": (int,),
        "int32": (int,),
        "float32": (int, float),
    }
    if default is None:
        return None
    if not isinstance(default, kinds[dtype]) or (isinstance(default, bool) and dtype != "bool"):
        raise FeaturesDiffer(f"{name}: the default {default!r} is not a {dtype}")
    if dtype != "float32":
        return default
    with np.errstate(over="ignore"):
        narrowed = float(np.float32(default))
    if not np.isfinite(narrowed):
        raise FeaturesDiffer(
            f"{name}: the default {default!r} is not a finite float32; leave it out for a missing value"
        )
    return narrowed


def _refuse_unknown(argument: str, unknown: set[str], known: set[str]) -> None:
    if unknown:
        raise FeaturesDiffer(
            f"{argument}: {', '.join(sorted(unknown))} is not among the service's names {', '.join(sorted(known))}"
        )


def _refuse_lengths(rows: _Rows, training: Training) -> None:
    if not len(rows.holdout):
        raise RowsRefused("holdout: no rows; parity and evaluation need rows that the estimator has not seen")
    if len(rows.labels) != len(rows.holdout):
        raise RowsRefused(f"labels: {len(rows.labels)} for {len(rows.holdout)} held-out rows")
    if training.rows != len(rows.trained_on):
        raise RowsRefused(f"training.rows says {training.rows}, and trained_on has {len(rows.trained_on)} rows")


def _outputs(answers: Sequence[NamedAnswer], dtypes: Mapping[str, DType]) -> tuple[Output, ...]:
    return tuple(Output(name=a.name, dtype=dtypes[a.name], meaning=a.meaning) for a in answers)


def _evaluation(
    graph: onnx.ModelProto, answer: NamedAnswer, ready: pd.DataFrame, rows: _Rows, slices: Sequence[str]
) -> tuple[Evaluation, ...]:
    session = session_of(graph.SerializeToString(deterministic=True))
    predicted = run(session, [answer.name], ready, "held-out rows")[0]
    actual = rows.labels == answer.answer.of if isinstance(answer.answer, Probability) else rows.labels
    return evaluate(predicted, actual, answer.meaning, rows.holdout, slices)


@contextmanager
def _breaches_named() -> Iterator[None]:
    """Turn what the contract's own rules refuse into a refusal to package."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or error.title
        raise PackagingError(f"{error.title}: {where}: {first['msg']} (given: {first['input']!r:.80})") from error


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
