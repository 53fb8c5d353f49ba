"""V2 over REST: JSON and binary tensors mean the same arrays, in every datatype."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy import FeatureState
from fairlead_server.errors import InvalidRequest, RequestTooLarge
from fairlead_server.predict.request import PredictRequest, PredictResponse
from fairlead_server.predict.signature import ANY, NUMPY_OF, TensorSpec
from fairlead_server.protocol import tensors, v2
from fairlead_server.protocol.call import InferCall
from fairlead_server.protocol.schema import Schema
from support.signatures import columns

SCHEMA = Schema(
    model="m",
    version="1",
    inputs=columns(f32="float32", f64="float64", i64="int64", i32="int32", flag="bool", text="string"),
    key_inputs=("text", "i64"),
    outputs=columns(p="float32", t="string"),
    rows_limit=1000,
)
INTEGERS = {name: np.iinfo(dtype) for name, dtype in NUMPY_OF.items() if dtype.kind in "iu"}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "FP16": st.floats(width=16, allow_nan=False, allow_infinity=False),
    "FP32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "FP64": st.floats(allow_nan=False, allow_infinity=False),
    "BYTES": st.text(st.characters(exclude_categories=["Cs"])),
} | {name: st.integers(int(bounds.min), int(bounds.max)) for name, bounds in INTEGERS.items()}
COLUMNS = st.sampled_from(list(VALUES)).flatmap(
    lambda datatype: st.tuples(st.just(datatype), st.lists(VALUES[datatype], min_size=1, max_size=5))
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


def decode_json(tensor: dict[str, Any], *, schema: Schema = SCHEMA, **rest: Any) -> InferCall:
    return v2.decode(json.dumps({"inputs": [tensor], **rest}).encode(), None, schema)


def decode_binary(name: str, datatype: str, shape: list[int], raw: bytes, *, schema: Schema = SCHEMA) -> InferCall:
    tensor = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
    head = orjson.dumps({"inputs": [tensor]})
    return v2.decode(head + raw, str(len(head)), schema)


@given(column=COLUMNS, nested=st.booleans())
def test_json_and_binary_tensors_mean_the_same_array(column: tuple[str, list[Any]], nested: bool) -> None:
    datatype, values = column
    shape = [len(values), 1] if nested else [len(values)]
    listed = [[value] for value in values] if nested else values
    schema = replace(SCHEMA, inputs={"x": TensorSpec("x", datatype, (ANY,) * len(shape))})
    tensor = {"name": "x", "datatype": datatype, "shape": shape, "data": listed}
    from_json = decode_json(tensor, schema=schema).request.inputs["x"]
    raw = tensors.to_bytes(np.array(values, NUMPY_OF[datatype]))
    from_bytes = decode_binary("x", datatype, shape, raw, schema=schema).request.inputs["x"]
    assert from_json.dtype == from_bytes.dtype == NUMPY_OF[datatype]
    assert from_json.shape == from_bytes.shape == tuple(shape)
    assert from_json.tolist() == from_bytes.tolist() == listed


@given(column=COLUMNS, name=st.sampled_from(list(SCHEMA.inputs)))
def test_conversion_to_the_contracts_type_changes_no_value(column: tuple[str, list[Any]], name: str) -> None:
    datatype, values = column
    with suppress(InvalidRequest):
        call = decode_json({"name": name, "datatype": datatype, "shape": [len(values)], "data": values})
        assert call.request.inputs[name].tolist() == values
        assert tensors.datatype_of(call.request.inputs[name]) == SCHEMA.inputs[name].datatype


@pytest.mark.parametrize(
    ("name", "datatype", "values"),
    [
        ("i64", "FP64", [5.0, -(2.0**62)]),
        ("i64", "UINT64", [2**63 - 1]),
        ("i64", "INT8", [-128]),
        ("i32", "INT64", [2**31 - 1]),
        ("f32", "FP64", [0.5, math.nan, math.inf]),
        ("f32", "INT32", [2**24]),
        ("f32", "FP16", [0.5]),
        ("f64", "INT64", [-(2**53)]),
    ],
)
def test_lossless_conversions_are_taken(name: str, datatype: str, values: list[Any]) -> None:
    raw = tensors.to_bytes(np.array(values, NUMPY_OF[datatype]))
    found = decode_binary(name, datatype, [len(values)], raw).request.inputs[name]
    assert np.array_equal(found, np.array(values, found.dtype), equal_nan=found.dtype.kind == "f")


@pytest.mark.parametrize(
    ("name", "datatype", "values"),
    [
        ("i64", "FP64", [5.5]),
        ("i64", "FP64", [2.0**63]),
        ("i64", "FP64", [math.nan]),
        ("i64", "FP32", [math.inf]),
        ("i64", "UINT64", [2**63]),
        ("i32", "INT64", [2**31]),
        ("f32", "FP64", [0.1]),
        ("f32", "FP64", [1e300]),
        ("f32", "FP64", [1e-300]),
        ("f32", "INT32", [2**24 + 1]),
        ("f64", "INT64", [2**63 - 1]),
        ("f64", "UINT64", [2**64 - 1]),
        ("flag", "UINT8", [1]),
        ("i64", "BOOL", [True]),
        ("text", "INT64", [1]),
        ("f64", "BYTES", ["1"]),
    ],
)
def test_lossy_conversions_are_refused_naming_the_field(name: str, datatype: str, values: list[Any]) -> None:
    raw = tensors.to_bytes(np.array(values, NUMPY_OF[datatype]))
    with pytest.raises(InvalidRequest, match=f"^{name}: ") as refused:
        decode_binary(name, datatype, [len(values)], raw)
    assert refused.value.field == name


@given(body=st.binary(max_size=200), length=st.none() | st.text(max_size=5) | st.integers(0, 200).map(str))
def test_arbitrary_bytes_are_decoded_or_refused(body: bytes, length: str | None) -> None:
    with pytest.raises(InvalidRequest):
        v2.decode(body, length, SCHEMA)


@given(inputs=JSON, outputs=JSON, parameters=JSON, identity=JSON)
def test_arbitrary_json_is_decoded_or_refused(inputs: Any, outputs: Any, parameters: Any, identity: Any) -> None:
    body = {"inputs": inputs, "outputs": outputs, "parameters": parameters, "id": identity}
    with pytest.raises(InvalidRequest):
        v2.decode(json.dumps(body).encode(), None, SCHEMA)


@given(
    tensor=st.fixed_dictionaries(
        {
            "name": st.sampled_from(["f32", "i64", "text", "x"]),
            "datatype": st.sampled_from(["FP32", "INT64", "BYTES", "BOOL"]),
            "shape": st.sampled_from([[1], [2], [1, 1], [2, 1], [0], [-1], [2**70]]) | JSON,
        },
        optional={"data": JSON, "parameters": JSON},
    )
)
def test_arbitrary_tensors_are_decoded_or_refused(tensor: dict[str, Any]) -> None:
    with suppress(InvalidRequest, RequestTooLarge):
        decode_json(tensor)


def call_for(*outputs: tuple[str, bool], identity: str = "") -> InferCall:
    return InferCall(PredictRequest({}, 2), identity, outputs)


ANSWER = PredictResponse(
    {"p": np.array([0.1, np.nan], np.float32), "t": np.array(["x", "é"], object)},
    {"view__name": (FeatureState.PRESENT, FeatureState.NOT_FOUND)},
    degraded=False,
    ages_s={"view": [0.5, None]},
)


def test_an_answer_in_json_has_null_for_what_is_not_finite() -> None:
    body, length = v2.encode(call_for(("p", False), ("t", False), identity="7"), ANSWER, SCHEMA)
    content = json.loads(body)
    assert length is None
    assert content["outputs"] == [
        {"name": "p", "datatype": "FP32", "shape": [2], "data": [0.1, None]},
        {"name": "t", "datatype": "BYTES", "shape": [2], "data": ["x", "é"]},
    ]
    assert (content["model_name"], content["model_version"], content["id"]) == ("m", "1", "7")
    assert json.loads(content["parameters"]["feature_states"]) == {"view__name": ["PRESENT", "NOT_FOUND"]}
    assert json.loads(content["parameters"]["feature_ages_s"]) == {"view": [0.5, None]}


def test_an_answer_mixes_json_and_bytes_as_asked() -> None:
    body, length = v2.encode(call_for(("t", True), ("p", False)), ANSWER, SCHEMA)
    content = json.loads(body[:length])
    assert content["outputs"][0] == {
        "name": "t",
        "datatype": "BYTES",
        "shape": [2],
        "parameters": {"binary_data_size": 11},
    }
    assert body[length:] == b"\x01\x00\x00\x00x\x02\x00\x00\x00\xc3\xa9"


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ({}, (("p", False), ("t", False))),
        ({"outputs": []}, (("p", False), ("t", False))),
        ({"parameters": {"binary_data_output": True}}, (("p", True), ("t", True))),
        ({"outputs": [{"name": "t"}]}, (("t", False),)),
        ({"outputs": [{"name": "t"}], "parameters": {"binary_data_output": True}}, (("t", True),)),
        (
            {
                "outputs": [{"name": "t", "parameters": {"binary_data": False}}, {"name": "p"}],
                "parameters": {"binary_data_output": True},
            },
            (("t", False), ("p", True)),
        ),
    ],
)
def test_requested_outputs_and_their_form_are_honoured(rest: dict[str, Any], expected: Any) -> None:
    tensor = {"name": "i64", "datatype": "INT64", "shape": [1], "data": [1]}
    assert decode_json(tensor, **rest).outputs == expected
