"""What a feature read from an online store is: its state and its value, of Feast's row and the time alone.

Stores differ. SQLite gives no row for an unknown entity, Redis one of unset values at 1970; a null is an unset
value on both. A feature that was never written is absent from SQLite's row, but an unset value in Redis' (and so
NULL): Feast's interface does not carry that difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fairlead.clock import to_us
from fairlead.contract import DType, Scalar
from fairlead.policy import FeatureState
from fairlead_server.hydrate.plan import FeaturePlan

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


@dataclass(frozen=True, slots=True)
class Found:
    """One entity's features of one view as found, in the plan's order."""

    event_us: int | None
    """Event time of the row, microseconds since 1970; None without a row."""
    cells: Sequence[tuple[FeatureState, Scalar | None]]
    """State and value per feature; the value is None unless PRESENT or STALE."""


def find(features: Sequence[FeaturePlan], row: StoredRow | None, max_age_us: int | None, now_us: int) -> Found:
    """Tell the state of each feature of one entity.

    Args:
        features: The view's features.
        row: What the store gave; None if it failed.
        max_age_us: Age beyond which a value is STALE (one of exactly this age is PRESENT); None never.
        now_us: The time, microseconds since 1970.
    """
    if row is None:
        return Found(None, [(FeatureState.STORE_ERROR, None)] * len(features))
    event_us = _event_us(row[0])
    values = row[1]
    if not event_us or not values:
        return Found(None, [(FeatureState.NOT_FOUND, None)] * len(features))
    stale = max_age_us is not None and now_us - event_us > max_age_us
    with_value = FeatureState.STALE if stale else FeatureState.PRESENT
    return Found(event_us, [_cell(feature, values.get(feature.name), with_value) for feature in features])


def _event_us(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    return to_us(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _cell(feature: FeaturePlan, value: Any, with_value: FeatureState) -> tuple[FeatureState, Scalar | None]:
    if value is None:
        return FeatureState.NEVER_WRITTEN, None
    field = value.WhichOneof("val")
    if field is None:
        return FeatureState.NULL, None
    if field not in _FIELDS[feature.dtype]:
        return FeatureState.STORE_ERROR, None
    scalar: Scalar = getattr(value, field)
    if isinstance(scalar, float) and math.isnan(scalar):
        return FeatureState.NULL, None
    return with_value, scalar
