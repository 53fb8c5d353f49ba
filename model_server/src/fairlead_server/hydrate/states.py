"""What a feature read from an online store is, by Feast's ``Value``: a value, or a state without one.

Stores differ. SQLite gives no row for an unknown entity, Redis one of unset values at 1970; a null is an unset
value on both. A feature that was never written is absent from SQLite's row, but an unset value in what Feast makes
of Redis' (and so NULL): its interface does not carry that difference; our own reader of Redis sees it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from fairlead.clock import to_us
from fairlead.contract import DType, Scalar
from fairlead.policy import FeatureState
from fairlead_server.hydrate.found import Array, Odd, ViewRead
from fairlead_server.hydrate.plan import ARRAY_TYPES, FeaturePlan

StoredRow = tuple[datetime | None, Mapping[str, Any] | None]
"""What Feast's ``online_read`` gives for one entity: event time, and ``Value`` messages by feature."""

_FIELDS: Mapping[DType, frozenset[str]] = {
    "float32": frozenset({"float_val", "double_val", "int64_val", "int32_val"}),
    "float64": frozenset({"float_val", "double_val", "int64_val", "int32_val"}),
    "int64": frozenset({"int64_val", "int32_val"}),
    "int32": frozenset({"int32_val"}),
    "bool": frozenset({"bool_val"}),
    "string": frozenset({"string_val"}),
}
"""Fields of Feast's ``Value`` that a feature of a type is read from."""

FILLER: Mapping[DType, Scalar] = {
    "float32": 0.0,
    "float64": 0.0,
    "int64": 0,
    "int32": 0,
    "bool": False,
    "string": "",
}
"""What stands in a column where there is no value."""


def columns_of(features: Sequence[FeaturePlan], rows: Sequence[StoredRow]) -> ViewRead:
    """Make columns of the rows that Feast gives.

    Args:
        features: The view's features.
        rows: One for each key that was asked for.
    """
    event_us = [_event_us(moment) if values else 0 for moment, values in rows]
    odd: list[Odd] = []
    columns = [_column(i, feature, rows, event_us, odd) for i, feature in enumerate(features)]
    return ViewRead(event_us, columns, odd)


def value_of(feature: FeaturePlan, value: Any) -> Scalar | FeatureState:
    """Return the value in a cell, or the state of one that has none.

    Args:
        feature: Whose cell it is.
        value: Feast's ``Value``; None if the store has none.
    """
    if value is None:
        return FeatureState.NEVER_WRITTEN
    field = value.WhichOneof("val")
    if field is None:
        return FeatureState.NULL
    if field not in _FIELDS[feature.dtype]:
        return FeatureState.STORE_ERROR
    scalar: Scalar = getattr(value, field)
    if isinstance(scalar, float) and math.isnan(scalar):
        return FeatureState.NULL
    return scalar


def array_of(feature: FeaturePlan, values: Iterable[Any], rows: int) -> Array:
    """Make a column; here, and where blocks are decoded, numbers are narrowed to the contract's type."""
    if feature.dtype != "float32":
        return np.fromiter(values, ARRAY_TYPES[feature.dtype], rows)
    with np.errstate(over="ignore"):
        return np.fromiter(values, np.float32, rows)


def _column(i: int, feature: FeaturePlan, rows: Sequence[StoredRow], event_us: Sequence[int], odd: list[Odd]) -> Array:
    cells: list[Any] = []
    for key, (_, values) in enumerate(rows):
        cell: Scalar | FeatureState = FILLER[feature.dtype]
        if event_us[key] and values:
            cell = value_of(feature, values.get(feature.name))
            if isinstance(cell, FeatureState):
                odd.append(Odd(i, key, cell))
                cell = FILLER[feature.dtype]
        cells.append(cell)
    return array_of(feature, cells, len(cells))


def _event_us(moment: datetime | None) -> int:
    if moment is None:
        return 0
    return to_us(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
