"""Binding decides by names what a request is, and names the field that does not fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.contract import Contract, Entity, Feature, RequestFeature
from fairlead.policy import Action, Hydration, Policy
from fairlead_server.errors import InvalidRequest, RequestTooLarge
from fairlead_server.hydrate.plan import ARRAY_TYPES, compile_plan
from fairlead_server.predict.binding import FullInputs, InputRules, KeyInputs, bind
from fairlead_server.predict.request import PredictRequest
from support.models import make_contract

STRICT = Policy(
    null=Action.REJECT,
    not_found=Action.REJECT,
    never_written=Action.REJECT,
    stale=Action.REJECT,
    store_error=Action.REJECT,
)


def _contract() -> Contract:
    return make_contract(
        [
            Feature(view="weather", name="temp", dtype="float32", join_keys=("origin",)),
            Feature(view="weather", name="wind", dtype="float64", join_keys=("origin",), default=1.5),
            Feature(view="weather", name="gust", dtype="float64", join_keys=("origin",), policy=STRICT),
            Feature(view="plane", name="seats", dtype="int64", join_keys=("tailnum",), default=0),
            Feature(view="plane", name="engines", dtype="int32", join_keys=("tailnum",), default=0),
            Feature(view="plane", name="jet", dtype="bool", join_keys=("tailnum",), default=False),
            Feature(view="plane", name="maker", dtype="string", join_keys=("tailnum",), default="unknown"),
        ],
        entities=[
            Entity(name="origin", join_key="origin", dtype="string"),
            Entity(name="tail", join_key="tailnum", dtype="string"),
        ],
        request_features=[
            RequestFeature(name="hour", dtype="int64"),
            RequestFeature(name="distance", dtype="float64"),
        ],
    )


def _rules(hydration: Hydration | None = None) -> InputRules:
    contract = _contract()
    return InputRules.of(contract, compile_plan(contract, hydration or Hydration()), 3)


RULES = _rules()


def _text(*values: Any) -> np.ndarray[Any, Any]:
    return np.array(values, np.object_)


def _full(**other: Any) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "weather__temp": np.array([1.0, 2.0], np.float32),
        "weather__wind": np.array([1.0, 2.0]),
        "weather__gust": np.array([1.0, 2.0]),
        "plane__seats": np.array([1, 2]),
        "plane__engines": np.array([1, 2], np.int32),
        "plane__jet": np.array([True, False]),
        "plane__maker": _text("BOEING", ""),
    }
    return inputs | other


def _keys(**other: Any) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "origin": _text("EWR", "JFK"),
        "tailnum": _text("N14228", "N24211"),
        "hour": np.array([5, 23]),
        "distance": np.array([1400.0, 1416.0]),
    }
    return inputs | other


def _bind(inputs: Mapping[str, Any], rows: int = 2, rules: InputRules = RULES) -> FullInputs | KeyInputs:
    return bind(rules, PredictRequest(inputs, rows))


def _refused(inputs: Mapping[str, Any], rows: int = 2) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        _bind(inputs, rows)
    return refused.value


def test_all_inputs_of_the_graph_are_a_full_request_of_the_contracts_types() -> None:
    bound = _bind(_full())
    assert isinstance(bound, FullInputs)
    assert {name: array.dtype for name, array in bound.columns.items()} == {
        name: ARRAY_TYPES[dtype] for name, dtype in RULES.tensors.items()
    }


def test_keys_and_request_features_are_a_hydrated_request() -> None:
    bound = _bind(_keys())
    assert isinstance(bound, KeyInputs)
    assert bound.columns["origin"].tolist() == ["EWR", "JFK"]


def test_columns_are_bound_whether_flat_or_one_wide() -> None:
    bound = _bind({name: array.reshape(2, 1) for name, array in _keys().items()})
    assert all(array.shape == (2,) for array in bound.columns.values())


def test_mixing_names_both_sets() -> None:
    refused = _refused(_full() | _keys())
    assert "mixes inputs of the model (plane__engines, " in str(refused)
    assert "with keys (distance, hour, origin, tailnum)" in str(refused)


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        (_keys(carrier=_text("UA", "UA")), "carrier"),
        (_full(carrier=_text("UA", "UA")), "carrier"),
        ({name: array for name, array in _keys().items() if name != "tailnum"}, "tailnum"),
        ({name: array for name, array in _full().items() if name != "plane__jet"}, "plane__jet"),
        (_keys() | {"weather__temp": np.ones(2, np.float32)}, "distance"),
        ({}, "distance"),
    ],
)
def test_names_that_do_not_fit_are_refused_naming_the_field_and_both_sets(inputs: dict[str, Any], field: str) -> None:
    refused = _refused(inputs)
    assert refused.field == field
    assert "a hydrated request has exactly distance, hour, origin, tailnum" in str(refused)
    assert "a full request has exactly plane__engines, plane__jet, plane__maker, plane__seats," in str(refused)


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        ("hour", np.array([5.0, 6.0]), "takes int64"),
        ("hour", np.array([True, False]), "takes int64"),
        ("hour", _text("5", "6"), "is str in row 0; it takes int64"),
        ("hour", _text(5, None), "is null in row 1; it takes int64"),
        ("hour", _text(5, True), "is bool in row 1; it takes int64"),
        ("hour", _text(5, 2**70), "too large"),
        ("hour", np.array([5, 2**63], np.uint64), "too large"),
        ("hour", np.array([1, 2, 3]), r"shape \[3\]; it must be \[2\] or \[2, 1\]"),
        ("hour", np.ones((1, 2), np.int64), r"shape \[1, 2\]"),
        ("hour", np.int64(5), r"shape \[\]"),
        ("distance", np.array([1.0, math.nan]), "missing .* in row 1"),
        ("distance", _text(1.0, None), "missing .* in row 1"),
        ("distance", np.array([-math.inf, 1.0]), "infinite.* in row 0"),
        ("distance", np.array(["1", "2"]), "takes float64"),
        ("origin", _text("EWR", ""), "empty in row 1"),
        ("origin", _text("EWR", None), "is null in row 1; it takes text"),
        ("origin", _text(b"EWR", "JFK"), "is bytes in row 0; it takes text"),
        ("origin", np.array([1, 2]), "takes string"),
        ("origin", _text("EWR", "\ud800"), "not valid Unicode in row 1"),
    ],
)
def test_a_key_that_does_not_fit_is_refused_naming_it(name: str, array: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as refused:
        _bind(_keys(**{name: array}))
    assert refused.value.field == name


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        ("weather__wind", np.array([1.0, math.inf]), "infinite"),
        ("weather__temp", np.array([1.0, 1e300]), "too large for float32"),
        ("weather__gust", np.array([1.0, math.nan]), "missing"),
        ("plane__engines", np.array([1, 2**31]), "too large for int32"),
        ("plane__jet", np.array([1, 0]), "takes bool"),
        ("plane__seats", np.array([1.0, 2.0]), "takes int64"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_naming_it(name: str, array: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as refused:
        _bind(_full(**{name: array}))
    assert refused.value.field == name


@pytest.mark.parametrize("rows", [0, -1])
def test_a_request_without_rows_is_refused(rows: int) -> None:
    assert "no rows" in str(_refused({name: array[:0] for name, array in _keys().items()}, rows))


def test_a_request_of_too_many_rows_is_refused_naming_the_limit() -> None:
    with pytest.raises(RequestTooLarge, match="4 rows; send at most 3"):
        _bind({name: np.concatenate([array, array]) for name, array in _keys().items()}, rows=4)


def test_a_float_may_be_missing_where_the_contract_or_the_deployment_feeds_missing_values() -> None:
    nan = np.array([math.nan, 1.0])
    _bind(_full(weather__temp=nan))
    _refused(_full(weather__wind=nan))
    nulls = Hydration(on_missing=Action.REJECT, on_stale=Action.NULL)
    only_floats = make_contract([feature for feature in _contract().features if feature.dtype.startswith("float")])
    rules = InputRules.of(only_floats, compile_plan(only_floats, nulls), 3)
    _bind(dict.fromkeys(rules.tensors, nan), rules=rules)


def test_numbers_widen_and_floats_narrow_to_the_contracts_type() -> None:
    bound = _bind(_full(weather__temp=np.array([0.1, 2]), weather__wind=np.array([1, 2]), plane__seats=_text(1, 2)))
    assert bound.columns["weather__temp"].tolist() == [np.float32(0.1), 2.0]
    assert bound.columns["weather__wind"].dtype == np.float64
    assert bound.columns["plane__seats"].tolist() == [1, 2]


_any_array = st.one_of(
    st.lists(st.floats(allow_nan=True), max_size=4).map(np.array),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4).map(lambda values: np.array(values, np.int64)),
    st.lists(st.booleans(), max_size=4).map(lambda values: np.array(values, np.bool_)),
    st.lists(
        st.one_of(st.text(max_size=3), st.none(), st.integers(), st.floats(), st.booleans(), st.binary(max_size=2)),
        max_size=4,
    ).map(lambda values: _text(*values)),
    st.lists(st.text(max_size=2), min_size=1, max_size=4).map(np.array),
)
_any_name = st.sampled_from([*RULES.tensors, *RULES.keys, "unknown"])


@given(
    base=st.sampled_from([_full(), _keys(), {}]),
    changes=st.dictionaries(_any_name, _any_array, max_size=3),
    dropped=st.sets(_any_name, max_size=2),
    rows=st.integers(0, 3),
)
def test_whatever_comes_is_bound_with_the_contracts_types_or_refused(
    base: dict[str, Any], changes: dict[str, Any], dropped: set[str], rows: int
) -> None:
    inputs = {name: array for name, array in (base | changes).items() if name not in dropped}
    try:
        bound = _bind(inputs, rows)
    except InvalidRequest:
        return
    wanted = RULES.tensors if isinstance(bound, FullInputs) else RULES.keys
    for name, column in bound.columns.items():
        assert column.shape == (rows,)
        assert column.dtype == ARRAY_TYPES[wanted[name]]
        assert column.dtype.kind != "f" or not np.isinf(column).any()
