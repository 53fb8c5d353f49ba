"""Whether two values are the same: by type, with a tolerance, and with nothing on one side or both."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairlead.contract import DType, Feature
from fairlead.policy import Action, Hydration, Policy
from fairlead.skew.compare import differs, substituted

NUMPY: dict[str, Any] = {"string": object, "bool": np.bool_}


@pytest.mark.parametrize(
    ("dtype", "seen", "joined", "same"),
    [
        ("float32", np.float32(40.1), 40.1, True),
        ("float32", np.float32(40.1), np.float32(40.1), True),
        ("float32", np.float32(40.1), 40.10001, True),
        ("float32", np.float32(40.1), 40.2, False),
        ("float32", np.float32(np.inf), 1e39, True),
        ("float32", math.nan, None, True),
        ("float32", math.nan, 0.0, False),
        ("float32", 0.0, None, False),
        ("float64", 1e300, 1e300, True),
        ("float64", -1.0, 1.0, False),
        ("float64", 0.0, 0.0, True),
        ("int64", 2**53 + 1, 2**53, False),
        ("int64", 12, 12.0, True),
        ("int64", 12, None, False),
        ("int32", 12, 13, False),
        ("bool", True, True, True),
        ("bool", True, False, False),
        ("bool", False, None, False),
        ("string", "BOEING", "BOEING", True),
        ("string", "BOEING", "AIRBUS", False),
        ("string", "unknown", None, False),
    ],
)
def test_values_are_the_same_or_not(dtype: DType, seen: Any, joined: Any, same: bool) -> None:
    column = pd.Series([seen], dtype=NUMPY.get(dtype, dtype))
    feature = Feature(view="v", name="f", dtype=dtype)
    found = differs(feature, column, np.array([False]), pd.Series([joined]), 1e-6)
    assert found.tolist() == [not same]


def test_what_is_missing_on_both_sides_agrees_whatever_stood_in_for_it() -> None:
    feature = Feature(view="v", name="f", dtype="int64", default=-7)
    seen, joined = pd.Series([-7, -7, -7, 5]), pd.Series([None, -7, 4, None], dtype=object)
    without = np.array([True, True, True, False])
    assert differs(feature, seen, without, joined, 1e-6).tolist() == [False, False, True, True]


def test_a_stale_value_that_is_used_is_no_substitute() -> None:
    states = pd.Series(["PRESENT", "NULL", "NOT_FOUND", "NEVER_WRITTEN", "STALE", "STORE_ERROR"], dtype=object)
    feature = Feature(view="v", name="f", dtype="float32", policy=Policy(stale=Action.DEFAULT))
    assert substituted(feature, Hydration(), states).tolist() == [False, True, True, True, True, True]
    used = substituted(feature, Hydration(on_stale=Action.USE), states)
    assert used.tolist() == [False, True, True, True, False, True]
