"""The two models: how each is built and with which parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fairlead.contract import Scalar

CALENDAR = ("departure__hour", "departure__weekday")
"""Features that are categories to a linear model."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is built from the columns of its feature service."""

    name: str
    build: Callable[[Sequence[str], Mapping[str, Any]], Any]
    """Unfitted estimator of columns and parameters."""
    parameters: Mapping[str, Scalar | None]


def _logistic(columns: Sequence[str], parameters: Mapping[str, Any]) -> Pipeline:
    numbers = [column for column in columns if column not in CALENDAR]
    filled = Pipeline([("impute", SimpleImputer(strategy="median")), ("scale", StandardScaler())])
    inputs = ColumnTransformer(
        [("numbers", filled, numbers), ("calendar", OneHotEncoder(handle_unknown="ignore"), list(CALENDAR))]
    )
    return Pipeline([("inputs", inputs), ("model", LogisticRegression(**parameters))])


def _boosted(_: Sequence[str], parameters: Mapping[str, Any]) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(**parameters)


RECIPES = {
    "logistic": Recipe("logistic", _logistic, {"C": 1.0, "solver": "lbfgs", "max_iter": 500}),
    "boosted": Recipe(
        "boosted",
        _boosted,
        {
            "learning_rate": 0.1,
            "max_iter": 150,
            "max_leaf_nodes": 31,
            "min_samples_leaf": 20,
            "early_stopping": False,
            "categorical_features": None,
            "random_state": 0,
        },
    ),
}
"""Both models by name."""
