"""Pipelines over the rows of :mod:`support.frames`, and packaging them in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from threadpoolctl import threadpool_limits

import fairlead
from fairlead.packaging import PackagedModel
from support.frames import COLUMNS, COUNTS, DEFAULTS, FLAG, NUMERIC, TEXT, Frames
from support.store import SERVICE, FeatureRepo

EXAMPLE: Mapping[str, Any] = {
    "origin": "EWR",
    "dest": "IAH",
    "tailnum": "N14228",
    "hour": 5,
    "weekday": 1,
    "distance": 1400.0,
}


def logistic() -> Pipeline:
    """Impute, scale, one-hot, logistic regression."""
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    return encoded(
        LogisticRegression(max_iter=500),
        ("numbers", numbers, [*NUMERIC, *COUNTS]),
        ("text", OneHotEncoder(handle_unknown="ignore"), [TEXT]),
        ("flag", "passthrough", [FLAG]),
    )


def boosted(**parameters: Any) -> Pipeline:
    """Ordinal categories, gradient boosting that takes missing values."""
    model = HistGradientBoostingClassifier(max_iter=30, random_state=0, **parameters)
    return ordinal(model)


def ordinal(model: Any, *others: tuple[str, Any, list[str]]) -> Pipeline:
    """Return ``model`` behind ordinal categories; ``others`` transform further columns, the rest pass."""
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return encoded(model, ("text", encode, [TEXT]), *others)


def encoded(model: Any, *transformers: tuple[str, Any, list[str]]) -> Pipeline:
    """Return ``model`` behind a ColumnTransformer; columns not named pass."""
    return Pipeline([("columns", ColumnTransformer(list(transformers), remainder="passthrough")), ("model", model)])


def fitted(estimator: Any, frames: Frames) -> Any:
    """Fit on the training rows with all columns of the service; on one thread, which small rows are faster on."""
    with threadpool_limits(limits=1):
        return estimator.fit(frames.train[list(COLUMNS)], frames.late_train)


def packaged(estimator: Any, repo: FeatureRepo, frames: Frames, path: Path, **arguments: Any) -> PackagedModel:
    """Package a fitted estimator with everything that a test does not care about filled in."""
    filled: dict[str, Any] = {
        "store": repo.store,
        "feature_service": SERVICE,
        "name": "arrival-delay",
        "version": "1",
        "outputs": "probability_late",
        "path": path,
        "trained_on": frames.train,
        "training": frames.training,
        "holdout": frames.holdout,
        "labels": frames.late,
        "slices": ("origin",),
        "defaults": DEFAULTS,
        "example": EXAMPLE,
    }
    model: PackagedModel = fairlead.package(estimator, **(filled | arguments))
    return model
