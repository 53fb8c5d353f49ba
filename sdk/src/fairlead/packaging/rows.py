"""Rows as a model sees them in serving: graph types, and the contract's defaults where a value is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairlead.contract import DType, Feature
from fairlead.packaging.errors import RowsRefused

_NUMPY: Mapping[DType, Any] = {
    "float32": np.float32,
    "int64": np.int64,
    "int32": np.int32,
    "bool": np.bool_,
    "string": object,
}


def served(frame: pd.DataFrame, features: Sequence[Feature], columns: Iterable[str], what: str) -> pd.DataFrame:
    """Return ``frame`` as serving would feed it.

    Args:
        frame: Rows with every feature by full name.
        features: The contract's features; a missing value becomes the feature's default.
        columns: Order of the result's columns.
        what: What the rows are, for messages.

    Raises:
        RowsRefused: A column is missing, or a value is and its type has no missing value.
    """
    absent = sorted({f.input for f in features} - set(frame.columns))
    if absent:
        raise RowsRefused(f"the {what} lack the features {', '.join(absent)}; build them with full feature names")
    ready = {feature.input: _column(frame[feature.input], feature, what) for feature in features}
    return pd.DataFrame({name: ready[name] for name in columns})


def feed(rows: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Return the graph's inputs for ``rows``, each of shape [n, 1]."""
    return {str(name): rows[name].to_numpy().reshape(-1, 1) for name in rows.columns}


def _column(values: pd.Series[Any], feature: Feature, what: str) -> NDArray[Any]:
    if feature.default is not None:
        values = values.astype(object).where(values.notna(), feature.default)
    if feature.dtype != "float32" and values.isna().any():
        raise RowsRefused(
            f"{feature.input}: {int(values.isna().sum())} of the {what} have no value, and {feature.dtype} cannot say "
            "so; give defaults={'" + feature.input + "': …}, or make the feature Float32 in its view"
        )
    if feature.dtype == "string":
        return values.astype(str).to_numpy(dtype=object)
    return (
        values.to_numpy(dtype=_NUMPY[feature.dtype], na_value=np.nan)
        if feature.dtype == "float32"
        else (values.to_numpy(dtype=_NUMPY[feature.dtype]))
    )
