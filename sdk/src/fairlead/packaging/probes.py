"""Rows that were never seen: where graphs and estimators part ways.

Held-out rows rarely have what breaks a conversion: a category nobody knew, a value exactly on a tree's threshold, a
view without a row. Probes are held-out rows with one such thing put into each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.pipeline import Pipeline

from fairlead.contract import Feature
from fairlead.packaging.refusals import walk

Predict = Callable[[pd.DataFrame], NDArray[Any]]
"""Answers for rows, shape [n]."""

_BASES = 8
_GRID = 32
_JUMP_BASES = 2
_MOST_THRESHOLDS = 200
_FAR = 100.0
_MOST_CATEGORIES = 50


@dataclass(frozen=True, slots=True)
class Probe:
    """A few rows that test one thing."""

    tests: str
    """What was put into the rows, such as ``plane__year missing``."""
    rows: pd.DataFrame


def probes(estimator: Any, rows: pd.DataFrame, features: Sequence[Feature], predict: Predict) -> Iterator[Probe]:
    """Yield the probes of an estimator.

    Args:
        estimator: The fitted estimator, read for tree thresholds.
        rows: Held-out rows as served, at least one, which the estimator accepts.
        features: The contract's features.
        predict: The estimator's numeric answer, to find where it jumps.
    """
    bases = _spread(rows, _BASES)
    yield from _missing(bases, features)
    for feature in features:
        yield from _outside(bases, rows[feature.input], feature)
    yield from _beside_thresholds(estimator, rows, features)
    yield from _beside_jumps(rows, features, predict)
    for feature in features:
        yield from _infinite(bases, feature)


def _missing(bases: pd.DataFrame, features: Sequence[Feature]) -> Iterator[Probe]:
    open_features = [f.input for f in features if f.dtype == "float32"]
    for name in open_features:
        yield Probe(f"{name} missing", _with(bases, [name], np.float32(np.nan)))
    views: dict[str, list[str]] = {}
    for feature in features:
        if feature.dtype == "float32":
            views.setdefault(feature.view, []).append(feature.input)
    for view, names in views.items():
        if len(names) > 1:
            yield Probe(f"{view} missing", _with(bases, names, np.float32(np.nan)))
    if open_features:
        yield Probe("every feature missing", _with(bases, open_features, np.float32(np.nan)))


def _outside(bases: pd.DataFrame, seen: pd.Series[Any], feature: Feature) -> Iterator[Probe]:
    name = feature.input
    match feature.dtype:
        case "string":
            known = str(seen.iloc[0])
            for what, text in (("unknown", "(unknown)"), ("empty", ""), ("blank-padded", f" {known} ")):
                yield Probe(f"{name} {what}", _with(bases, [name], text))
            for text in sorted(set(seen.astype(str)))[:_MOST_CATEGORIES]:
                yield Probe(f"{name} = {text}", _with(bases, [name], text))
        case "int64" | "int32":
            low, high = int(seen.min()), int(seen.max())
            limits = np.iinfo(feature.dtype)
            for number in (max(low - 1, limits.min), min(high + 1, limits.max), -1, 0):
                yield Probe(f"{name} = {number}", _with(bases, [name], number))
        case "float32":
            for value in _far_values(seen):
                yield Probe(f"{name} = {value:g}", _with(bases, [name], value))
        case "bool":
            for flag in (False, True):
                yield Probe(f"{name} = {flag}", _with(bases, [name], flag))
        case _:
            return


def _infinite(bases: pd.DataFrame, feature: Feature) -> Iterator[Probe]:
    if feature.dtype == "float32":
        for value in (np.float32(np.inf), np.float32(-np.inf)):
            yield Probe(f"{feature.input} = {value:g}", _with(bases, [feature.input], value))


def _far_values(seen: pd.Series[Any]) -> tuple[np.float32, ...]:
    values = _finite(seen)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    reach = _FAR * max(high - low, 1.0)
    return tuple(np.float32(v) for v in (low, high, low - reach, high + reach, 0.0, -0.0))


def _beside_thresholds(estimator: Any, rows: pd.DataFrame, features: Sequence[Feature]) -> Iterator[Probe]:
    floats = {f.input for f in features if f.dtype == "float32"}
    for name, thresholds in split_thresholds(estimator, rows).items():
        if name not in floats:
            continue
        at = thresholds[np.linspace(0, len(thresholds) - 1, min(len(thresholds), _MOST_THRESHOLDS)).astype(int)]
        exact = at.astype(np.float32)
        values = np.concatenate([exact, _next(exact, -np.inf), _next(exact, np.inf)])
        chosen = _spread(rows, len(values), repeat=True)
        chosen[name] = values
        yield Probe(f"{name} beside a split threshold", chosen)


def split_thresholds(estimator: Any, rows: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Return the thresholds, ascending, of the trees that see a column as it is.

    Args:
        estimator: A fitted estimator; trees anywhere inside are found.
        rows: Rows as the estimator takes them; compared with what its preprocessing makes of them.
    """
    seen_as = _columns_of_trees(estimator, rows)
    found: dict[str, list[NDArray[np.float64]]] = {}
    for _, step in walk(estimator):
        for feature, threshold in _splits(step):
            for index in np.unique(feature):
                name = seen_as.get(int(index))
                if name is not None:
                    found.setdefault(name, []).append(threshold[feature == index])
    return {name: np.unique(np.concatenate(parts)) for name, parts in found.items()}


def _columns_of_trees(estimator: Any, rows: pd.DataFrame) -> dict[int, str]:
    """Name the columns that reach the last step unchanged, by their position there."""
    if not isinstance(estimator, Pipeline):
        return {i: str(name) for i, name in enumerate(rows.columns)}
    some = _spread(rows, 200)
    made: Any = estimator[:-1].transform(some) if len(estimator.steps) > 1 else some
    dense = made.toarray() if issparse(made) else np.asarray(made)
    numbers = {str(n): some[n].to_numpy(dtype=np.float64) for n in some.columns if some[n].dtype != object}
    return {
        index: name
        for index in range(dense.shape[1])
        for name, values in numbers.items()
        if _same(dense[:, index], values)
    }


def _same(made: NDArray[Any], values: NDArray[np.float64]) -> bool:
    try:
        return bool(np.array_equal(made.astype(np.float64), values, equal_nan=True))
    except (TypeError, ValueError):
        return False


def _splits(step: Any) -> Iterator[tuple[NDArray[Any], NDArray[np.float64]]]:
    """Yield (column, threshold) of the inner nodes of each tree that ``step`` itself holds."""
    tree = getattr(step, "tree_", None)
    if tree is not None and hasattr(tree, "threshold"):
        inner = tree.children_left >= 0
        yield tree.feature[inner], tree.threshold[inner].astype(np.float64)
    for stage in getattr(step, "_predictors", ()):
        for predictor in stage:
            nodes = predictor.nodes[predictor.nodes["is_leaf"] == 0]
            yield nodes["feature_idx"], nodes["num_threshold"].astype(np.float64)


def _beside_jumps(rows: pd.DataFrame, features: Sequence[Feature], predict: Predict) -> Iterator[Probe]:
    """Bisect to where the answer jumps between neighbouring float32 values, whatever makes it jump."""
    steps = _Steps.of(rows, features)
    if not len(steps.name):
        return
    low, high = steps.low, steps.high
    at_low = predict(steps.rows_at(low))
    apart = at_low != predict(steps.rows_at(high))
    while (high - low).max() > 1:
        middle = (low + high) // 2
        left = predict(steps.rows_at(middle)) == at_low
        low, high = np.where(left, middle, low), np.where(left, high, middle)
    for name in np.unique(steps.name):
        chosen = apart & (steps.name == name)
        if chosen.any():
            beside = pd.concat([steps.rows_at(low)[chosen], steps.rows_at(high)[chosen]], ignore_index=True)
            yield Probe(f"{name} beside a jump of the answer", beside)


@dataclass(frozen=True, slots=True)
class _Steps:
    """Intervals of one feature each, all of shape [m]; the rest of the row is that of a base row."""

    bases: pd.DataFrame
    """The base row of each interval, [m, features]."""
    name: NDArray[np.str_]
    """The feature that varies."""
    low: NDArray[np.int64]
    """Ends, as ordinals of float32."""
    high: NDArray[np.int64]

    @classmethod
    def of(cls, rows: pd.DataFrame, features: Sequence[Feature]) -> _Steps:
        grids = {f.input: _to_ordinals(_grid(rows[f.input])) for f in features if f.dtype == "float32"}
        bases = _spread(rows, _JUMP_BASES)
        names = np.array([name for name, grid in grids.items() for _ in grid[1:]], dtype=str)
        low = np.array([end for grid in grids.values() for end in grid[:-1]], dtype=np.int64)
        high = np.array([end for grid in grids.values() for end in grid[1:]], dtype=np.int64)
        return cls(
            bases.loc[bases.index.repeat(len(names))].reset_index(drop=True),
            np.tile(names, len(bases)),
            np.tile(low, len(bases)),
            np.tile(high, len(bases)),
        )

    def rows_at(self, ordinals: NDArray[np.int64]) -> pd.DataFrame:
        """Return the rows with each interval's feature at the value of that ordinal."""
        values = _from_ordinals(ordinals)
        varied = {
            name: np.where(self.name == name, values, self.bases[name].to_numpy()) for name in np.unique(self.name)
        }
        return self.bases.assign(**varied)


def _grid(seen: pd.Series[Any]) -> NDArray[np.float32]:
    values = _finite(seen)
    if not len(values):
        return values
    return np.unique(np.quantile(values, np.linspace(0, 1, _GRID)).astype(np.float32))


def _to_ordinals(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Number float32 values so that neighbours differ by one."""
    bits = values.view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _from_ordinals(ordinals: NDArray[np.int64]) -> NDArray[np.float32]:
    values = np.abs(ordinals).astype(np.int32).view(np.float32)
    return np.where(ordinals < 0, -values, values).astype(np.float32)


def _finite(seen: pd.Series[Any]) -> NDArray[np.float32]:
    values = np.asarray(seen, dtype=np.float32)
    return np.asarray(values[np.isfinite(values)])


def _next(values: NDArray[np.float32], towards: float) -> NDArray[np.float32]:
    return np.asarray(np.nextafter(values, np.float32(towards)), dtype=np.float32)


def _with(bases: pd.DataFrame, names: Sequence[str], value: Any) -> pd.DataFrame:
    return bases.assign(**{name: pd.Series([value] * len(bases), dtype=bases[name].dtype) for name in names})


def _spread(rows: pd.DataFrame, count: int, *, repeat: bool = False) -> pd.DataFrame:
    """Return ``count`` rows taken evenly (all of them if there are fewer, unless repeated)."""
    count = count if repeat else min(count, len(rows))
    return rows.iloc[np.linspace(0, len(rows) - 1, count).astype(int)].reset_index(drop=True)
