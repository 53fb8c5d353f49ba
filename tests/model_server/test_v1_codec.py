"""V1 bodies and the arrays they mean."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy import FeatureState
from fairlead_server.errors import InvalidRequest
from fairlead_server.predict.request import PredictResponse
from fairlead_server.protocol import v1
from fairlead_server.protocol.schema import Schema
from support.signatures import columns

SCHEMA = Schema(
    model="m",
    version="1",
    inputs=columns(f32="float32", f64="float64", i64="int64", i32="int32", flag="bool", text="string"),
    key_inputs=("text", "i64"),
    outputs=columns(p="float32"),
    rows_limit=1000,
)
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "f32": FLOAT32 | st.none(),
            "f64": st.floats(allow_nan=False, allow_infinity=False) | st.none(),
            "i64": st.integers(-(2**63), 2**63 - 1),
            "i32": st.integers(-(2**31), 2**31 - 1),
            "flag": st.booleans(),
            "text": st.text(st.characters(exclude_categories=["Cs"])),
        }
    ),
    min_size=1,
    max_size=5,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


def decoded(rows: Any, **rest: Any) -> Any:
    return v1.decode(json.dumps({"instances": rows, **rest}).encode(), SCHEMA)


@given(rows=ROWS)
def test_every_value_arrives_as_it_was_sent_in_the_contracts_type(rows: list[dict[str, Any]]) -> None:
    request = decoded(rows)
    assert request.rows == len(rows)
    types = {"f32": "float32", "f64": "float64", "i64": "int64", "i32": "int32", "flag": "bool", "text": "object"}
    assert {name: str(array.dtype) for name, array in request.inputs.items()} == types
    for row, sent in enumerate(rows):
        for name, value in sent.items():
            got = request.inputs[name][row]
            assert math.isnan(got) if value is None else got == value


@given(body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_bytes_are_decoded_or_refused(body: bytes) -> None:
    with suppress(InvalidRequest):
        v1.decode(body, SCHEMA)


@given(instances=JSON, parameters=JSON)
def test_arbitrary_instances_are_decoded_or_refused(instances: Any, parameters: Any) -> None:
    with suppress(InvalidRequest):
        decoded(instances, parameters=parameters)


@given(value=JSON, name=st.sampled_from(list(SCHEMA.inputs)))
def test_an_arbitrary_value_is_decoded_or_refused_naming_the_field(value: Any, name: str) -> None:
    field: str | None = name
    try:
        decoded([{name: value}])
    except InvalidRequest as error:
        field = error.field
    assert field in {name, None}


@pytest.mark.parametrize("text", ['{"instances":[{"text":"a:b"}]}', '{"instances": [ {"text" : "::"} ] , "x":{"y":1}}'])
def test_colons_in_text_are_no_repeated_names(text: str) -> None:
    assert v1.decode(text.encode(), SCHEMA).rows == 1


@pytest.mark.parametrize(
    "text",
    [
        '{"instances":[{"i64":1,"i64":1}]}',
        '{"instances":[{"i64":1}],"instances":[{"i64":1}]}',
        '{"instances":[{"text":":","i64":1,"i64":1}]}',
        '{"instances":[{"i64":1}],"parameters":{"a":1,"a":2}}',
        '{"instances":[{"i64":1}],"x":{"a":[{"b":1,"b":1}]}}',
        '{"instances":[{"i64":1,"\\u00694":2,"i\\u00364":3}]}',
    ],
)
def test_repeated_names_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"there twice|the same names"):
        v1.decode(text.encode(), SCHEMA)


def test_a_whole_float_is_an_integer_and_an_integer_a_float() -> None:
    request = decoded([{"i64": 5.0, "f32": 7, "f64": 2**53}])
    assert (request.inputs["i64"][0], request.inputs["f32"][0], request.inputs["f64"][0]) == (5, 7.0, 2.0**53)


@given(value=st.floats(width=32))
def test_float32_is_written_shortest_and_what_is_not_finite_as_null(value: float) -> None:
    answer = PredictResponse({"p": np.array([value], np.float32)}, None, degraded=False)
    written = json.loads(v1.encode(answer, SCHEMA))["predictions"][0]["p"]
    if math.isfinite(value):
        assert np.float32(written) == np.float32(value)
        assert float(f"{written:.9g}") == written
    else:
        assert written is None


def test_outputs_of_every_type_are_written_by_row() -> None:
    outputs: dict[str, Any] = {
        "p": np.array([0.1, 0.2], np.float32),
        "n": np.array([1, -2], np.int64),
        "b": np.array([True, False]),
        "t": np.array(["x", "é"], object),
        "u": np.array(["x", "y"]),
    }
    assert json.loads(v1.encode(PredictResponse(outputs, None, degraded=False), SCHEMA)) == {
        "predictions": [
            {"p": 0.1, "n": 1, "b": True, "t": "x", "u": "x"},
            {"p": 0.2, "n": -2, "b": False, "t": "é", "u": "y"},
        ]
    }


def test_states_are_written_per_feature_and_row() -> None:
    states = {"view__name": (FeatureState.PRESENT, FeatureState.STALE)}
    answer = PredictResponse({"p": np.zeros(2, np.float32)}, states, degraded=True, ages_s={"view": [0.5, None]})
    assert orjson.loads(v1.encode(answer, SCHEMA))["parameters"] == {
        "feature_states": {"view__name": ["PRESENT", "STALE"]},
        "feature_ages_s": {"view": [0.5, None]},
        "degraded": True,
    }
