"""What is refused before a converter sees it.

Some constructs of scikit-learn convert without a warning into a graph that answers something else. Those that are
known are refused here, each with the pipeline that works; parity (:mod:`fairlead.packaging.parity`) catches the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from fairlead.packaging.errors import EstimatorRefused, FeaturesDiffer

_STEPS = ("steps", "transformers_", "transformers", "transformer_list", "named_estimators_")


def refuse_unfit(estimator: Any) -> None:
    """Refuse an estimator that is not fitted, has no column names, or has a step known to convert wrongly.

    Raises:
        EstimatorRefused: One of these; the message names the step and what works instead.
    """
    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError) as error:
        raise EstimatorRefused(f"{type(estimator).__name__} is not fitted; call fit() before package()") from error
    if getattr(estimator, "feature_names_in_", None) is None:
        raise EstimatorRefused(
            f"{type(estimator).__name__} was trained on an array without column names; fit it on a DataFrame whose "
            "columns are the feature service's full feature names (view__feature)"
        )
    for path, step in walk(estimator):
        _refuse_categories(path, step)
        _refuse_indicator(path, step)


def refuse_other_columns(columns: Iterable[str], features: Sequence[str], service: str) -> None:
    """Refuse an estimator whose columns are not exactly the feature service's features.

    Raises:
        FeaturesDiffer: They differ; the message names both sets.
    """
    trained, served = set(columns), set(features)
    if trained == served:
        return
    only_trained, only_served = sorted(trained - served), sorted(served - trained)
    raise FeaturesDiffer(
        f"the estimator's columns are not the features of {service}: only the estimator has "
        f"{', '.join(only_trained) or 'none'}; only the service has {', '.join(only_served) or 'none'}; train on the "
        "service's features with get_historical_features(full_feature_names=True), or change the service"
    )


def walk(estimator: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every estimator inside ``estimator``, itself included, with its dotted path (``columns.text.encode``)."""
    yield from _walk(estimator, path, set())


def _walk(estimator: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if id(estimator) in seen:
        return
    seen.add(id(estimator))
    yield path or type(estimator).__name__, estimator
    for name, child in _children(estimator):
        yield from _walk(child, f"{path}.{name}" if path else name, seen)


def _children(estimator: Any) -> Iterator[tuple[str, Any]]:
    held = vars(estimator)
    named = [entry for key in _STEPS if key in held for entry in _named(held[key])]
    yield from named
    for key, value in held.items():
        if key not in _STEPS:
            yield from ((key, child) for child in _estimators_in(value))


def _named(entries: Any) -> Iterator[tuple[str, Any]]:
    pairs = entries.items() if hasattr(entries, "items") else ((entry[0], entry[1]) for entry in entries)
    yield from ((name, child) for name, child in pairs if _is_estimator(child))


def _estimators_in(value: Any) -> Iterator[Any]:
    if _is_estimator(value):
        yield value
    elif isinstance(value, dict):
        yield from (child for child in value.values() if _is_estimator(child))
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        flat = value.ravel() if isinstance(value, np.ndarray) else value
        yield from (child for child in flat if _is_estimator(child))


def _is_estimator(value: Any) -> bool:
    # scikit-learn keeps calibrators in a class of its own that is no BaseEstimator.
    return (isinstance(value, BaseEstimator) and not isinstance(value, type)) or type(value).__name__.startswith(
        "_Calibrated"
    )


def _refuse_categories(path: str, step: Any) -> None:
    if not isinstance(step, HistGradientBoostingClassifier | HistGradientBoostingRegressor):
        return
    categories = getattr(step, "is_categorical_", None)
    if categories is None or not np.any(categories):
        return
    kind = type(step).__name__
    raise EstimatorRefused(
        f"{path}: {kind} with categorical_features converts to a graph that answers something else; encode the "
        "categories before it and leave categorical_features=None: make_pipeline(ColumnTransformer([('text', "
        "OneHotEncoder(handle_unknown='ignore', sparse_output=False), [...])], remainder='passthrough'), "
        f"{kind}(categorical_features=None)), or OrdinalEncoder(handle_unknown='use_encoded_value', "
        "unknown_value=-1) where there are many"
    )


def _refuse_indicator(path: str, step: Any) -> None:
    if isinstance(step, SimpleImputer) and step.add_indicator:
        raise EstimatorRefused(
            f"{path}: SimpleImputer(add_indicator=True) fails to convert, or converts to a graph that answers "
            "something else; use SimpleImputer() alone, or a model that takes missing values (HistGradientBoosting)"
        )


def takes_columns_by_name(estimator: Any) -> bool:
    """Whether the estimator's first step picks its columns by name, so that each can be an input of its own."""
    return isinstance(estimator, ColumnTransformer) or (
        isinstance(estimator, Pipeline) and takes_columns_by_name(estimator.steps[0][1])
    )
