"""How each feature was distributed in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from fairlead.contract import DType, Statistics

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_MOST_CATEGORIES = 100


def statistics_of(values: pd.Series[Any], dtype: DType) -> Statistics:
    """Summarize one feature.

    Args:
        values: The feature in training, shape [n]; missing values and infinities allowed.
        dtype: Its type in the graph.
    """
    present = values[values.notna()]
    counts = {"count": len(values), "missing": len(values) - len(present)}
    if dtype == "string":
        return Statistics(**counts, categories=_categories(present.astype(str)))
    numbers = present.to_numpy(dtype=np.float64)
    finite = numbers[np.isfinite(numbers)]
    categorical = dtype in {"int64", "int32", "bool"} and present.nunique() <= _MOST_CATEGORIES
    categories = _categories(present.astype("int64")) if categorical else {}
    if not len(finite):
        return Statistics(**counts, categories=categories)
    return Statistics(
        **counts,
        mean=float(finite.mean()),
        std=float(finite.std()),
        quantiles={f"{q:g}": float(v) for q, v in zip(QUANTILES, np.quantile(finite, QUANTILES), strict=True)},
        categories=categories,
    )


def _categories(values: pd.Series[Any]) -> dict[str, int]:
    counted = values.value_counts()
    ordered = sorted(counted.items(), key=lambda pair: (-int(pair[1]), str(pair[0])))
    return {str(value): int(rows) for value, rows in ordered[:_MOST_CATEGORIES]}
