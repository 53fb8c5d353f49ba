"""How good a packaged model is on rows it has not seen, overall and by slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from fairlead.contract import Evaluation
from fairlead.packaging.errors import RowsRefused

ALL = "all"
_MOST_VALUES = 50
_SMALLEST_PROBABILITY = 1e-7

Metrics = dict[str, float]


def probability_metrics(predicted: NDArray[Any], happened: NDArray[Any]) -> Metrics:
    """Score probabilities.

    Args:
        predicted: Probability of the event, shape [n], n > 0.
        happened: Whether it happened, shape [n].

    Returns:
        ``brier``, ``log_loss`` (nats; probabilities are kept 1e-7 from 0 and 1), ``mean_predicted``, ``mean_actual``,
        and ``roc_auc`` where both outcomes occur.
    """
    p = predicted.astype(np.float64)
    y = happened.astype(np.float64)
    kept = np.clip(p, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    scores = {
        "brier": float(np.mean((p - y) ** 2)),
        "log_loss": float(-np.mean(y * np.log(kept) + (1 - y) * np.log1p(-kept))),
        "mean_predicted": float(p.mean()),
        "mean_actual": float(y.mean()),
    }
    return scores | ({"roc_auc": float(roc_auc_score(y, p))} if 0 < y.mean() < 1 else {})


def value_metrics(predicted: NDArray[Any], actual: NDArray[Any]) -> Metrics:
    """Score a regression's estimates, shape [n]: ``squared_error``, ``absolute_error`` and both means."""
    p, y = predicted.astype(np.float64), actual.astype(np.float64)
    return {
        "squared_error": float(np.mean((p - y) ** 2)),
        "absolute_error": float(np.mean(np.abs(p - y))),
        "mean_predicted": float(p.mean()),
        "mean_actual": float(y.mean()),
    }


def label_metrics(predicted: NDArray[Any], actual: NDArray[Any]) -> Metrics:
    """Score predicted classes, shape [n]: ``accuracy``."""
    return {"accuracy": float(np.mean(predicted.astype(str) == actual.astype(str)))}


_METRICS = {"probability": probability_metrics, "value": value_metrics, "label": label_metrics}


def evaluate(
    predicted: NDArray[Any],
    actual: NDArray[Any],
    meaning: Literal["probability", "label", "value"],
    holdout: pd.DataFrame,
    slices: Sequence[str] = (),
) -> tuple[Evaluation, ...]:
    """Score a model on all held-out rows and by the values of some columns.

    Args:
        predicted: The model's output, shape [n].
        actual: What happened, shape [n].
        meaning: Of the output, as in the contract.
        holdout: The rows, for their columns.
        slices: Columns with at most 50 values; each value becomes a slice such as ``origin=EWR``.

    Raises:
        RowsRefused: A slice's column is missing, or has too many values.
    """
    score = _METRICS[meaning]
    return tuple(
        Evaluation(slice=name, rows=int(mask.sum()), metrics=score(predicted[mask], actual[mask]))
        for name, mask in _masks(holdout, slices)
    )


def _masks(holdout: pd.DataFrame, slices: Sequence[str]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    yield ALL, np.ones(len(holdout), dtype=np.bool_)
    for column in slices:
        if column not in holdout.columns:
            raise RowsRefused(f"slices: the held-out rows have no column {column}")
        values = holdout[column].dropna().unique()
        if len(values) > _MOST_VALUES:
            raise RowsRefused(f"slices: {column} has {len(values)} values, at most {_MOST_VALUES} are slices")
        for value in sorted(values):
            yield f"{column}={value}", (holdout[column] == value).to_numpy(dtype=np.bool_)
