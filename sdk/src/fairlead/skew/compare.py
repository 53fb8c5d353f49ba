"""Whether what the model saw is what a point-in-time join gives, a column at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairlead.contract import DType, Feature
from fairlead.policy import Action, FeatureState, Hydration

Mask = NDArray[np.bool_]
"""Shape [rows]."""


def differs(feature: Feature, seen: pd.Series[Any], without: Mask, joined: pd.Series[Any], tolerance: float) -> Mask:
    """Return where values differ.

    Args:
        feature: Whose they are.
        seen: What the model saw, [rows].
        without: Where that was a substitute, for there was no value.
        joined: What the join gives, [rows]; null for no value.
        tolerance: How far numbers may be apart, as a share of the larger one.
    """
    missing = joined.isna().to_numpy(bool)
    equal = _equal(feature.dtype, seen, joined, tolerance)
    return ~(equal | (without & missing))


def substituted(feature: Feature, hydration: Hydration, states: pd.Series[Any]) -> Mask:
    """Return where the model saw a substitute, for the store had no value, or one that was too old.

    Args:
        feature: As the contract has it.
        hydration: The deployment's choices.
        states: How it was found, [rows].
    """
    without = (states != FeatureState.PRESENT).to_numpy(bool)
    if hydration.applied_to(feature.policy).stale is Action.USE:
        without &= (states != FeatureState.STALE).to_numpy(bool)
    return without


def _equal(dtype: DType, seen: pd.Series[Any], joined: pd.Series[Any], tolerance: float) -> Mask:
    if dtype == "string" or (not dtype.startswith("float") and joined.dtype.kind in "iub"):
        same: Mask = np.equal(seen.to_numpy(object), joined.to_numpy(object)).astype(bool)
        return same
    ours: NDArray[np.float64] = seen.to_numpy(np.float64)
    theirs: NDArray[np.float64] = pd.to_numeric(joined, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    if dtype == "float32":
        with np.errstate(over="ignore"):
            theirs = theirs.astype(np.float32).astype(np.float64)
    with np.errstate(invalid="ignore"):
        near = np.abs(ours - theirs) <= tolerance * np.maximum(np.abs(ours), np.abs(theirs))
    both_missing = np.isnan(ours) & np.isnan(theirs)
    apart: Mask = ~((ours == theirs) | near | both_missing)
    return ~apart
