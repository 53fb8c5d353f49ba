"""Models without a contract: every datatype, shape and form of the protocol means what ONNX Runtime is given."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper
from prometheus_client import CollectorRegistry

from fairlead.clock import SystemClock
from fairlead_server.errors import InvalidRequest, ModelFileError, RequestTooLarge
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.load import load
from fairlead_server.predict.predictor import Predictor
from fairlead_server.predict.request import PredictRequest
from fairlead_server.predict.settings import PredictorSettings
from fairlead_server.predict.signature import NUMPY_OF, TensorSpec
from fairlead_server.protocol import tensors, v1, v2
from fairlead_server.protocol.grpc import codec
from fairlead_server.protocol.grpc.messages import pb
from support.plain_models import ELEMENT_TYPES, Opened, Tensor, graph, identity, opened, sums, written

Array = NDArray[Any]

SHAPES: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (3,), (2, 3), (0, 2), (2, 0), (2, 1, 2), (1, 1, 1, 1))
FORMS = ("json-flat", "json-nested", "binary", "grpc-raw", "grpc-typed")
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "FP16": st.floats(width=16, allow_nan=False, allow_infinity=False),
    "BF16": st.integers(-256, 256).map(float) | st.sampled_from([0.5, -0.125, 3.0e38, 1e-38]),
    "FP32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "FP64": st.floats(allow_nan=False, allow_infinity=False),
    "BYTES": st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
} | {
    name: st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    for name, dtype in NUMPY_OF.items()
    if dtype.kind in "iu"
}


@st.composite
def tensors_of(draw: st.DrawFn) -> tuple[str, Array]:
    datatype = draw(st.sampled_from(list(VALUES)))
    shape = draw(st.sampled_from(SHAPES))
    count = int(np.prod(shape, dtype=int))
    values = draw(st.lists(VALUES[datatype], min_size=count, max_size=count))
    flat = np.empty(count, NUMPY_OF[datatype])
    flat[:] = values
    return datatype, flat.reshape(shape)


def nested(array: Array) -> list[Any]:
    """Return JSON data nested as the array is; a scalar is one value in a list."""
    if array.dtype == NUMPY_OF["BF16"]:
        array = array.astype(np.float64)
    listed: Any = array.tolist()
    return [listed] if array.shape == () else listed


def over_json(model: Opened, datatype: str, array: Array, *, flat: bool) -> dict[str, Any]:
    data = nested(array.reshape(-1) if flat else array)
    tensor = {"name": "x", "datatype": datatype, "shape": list(array.shape), "data": data}
    call = v2.decode(json.dumps({"inputs": [tensor]}).encode(), None, model.schema)
    body, json_length = v2.encode(call, model.answer(call.request), model.schema)
    assert json_length is None
    output: dict[str, Any] = orjson.loads(body)["outputs"][0]
    return output


def over_binary(model: Opened, datatype: str, array: Array) -> tuple[dict[str, Any], bytes]:
    raw = tensors.to_bytes(array)
    tensor = {
        "name": "x",
        "datatype": datatype,
        "shape": list(array.shape),
        "parameters": {"binary_data_size": len(raw)},
    }
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    call = v2.decode(head + raw, str(len(head)), model.schema)
    body, json_length = v2.encode(call, model.answer(call.request), model.schema)
    if json_length is None:  # nothing follows the JSON of a tensor without elements
        json_length = len(body)
    return orjson.loads(body[:json_length])["outputs"][0], body[json_length:]


def over_grpc(model: Opened, datatype: str, array: Array, *, raw: bool) -> Any:
    message = pb.ModelInferRequest(model_name="plain")
    tensor = message.inputs.add(name="x", datatype=datatype, shape=array.shape)
    if raw:
        message.raw_input_contents.append(tensors.to_bytes(array))
    else:
        values = [value.encode() for value in array.reshape(-1)] if datatype == "BYTES" else array.reshape(-1).tolist()
        getattr(tensor.contents, codec.CONTENTS_OF[datatype]).extend(values)
    call = codec.decode(message.SerializeToString(), model.schema)
    return pb.ModelInferResponse.FromString(codec.encode(call, model.answer(call.request), model.schema))


@given(case=tensors_of(), form=st.sampled_from(FORMS))
def test_every_datatype_and_shape_comes_back_as_onnxruntime_gives_it(case: tuple[str, Array], form: str) -> None:
    datatype, array = case
    model = opened(identity, datatype, tuple(f"d{place}" for place in range(array.ndim)))
    expected = array
    if datatype != "BF16":  # which ONNX Runtime's Python interface gives to nobody
        (expected,) = onnxruntime.InferenceSession(identity(datatype, [None] * array.ndim)).run(None, {"x": array})
        expected = np.asarray(expected).reshape(array.shape)
    raw = tensors.to_bytes(np.asarray(expected, NUMPY_OF[datatype]))
    if form.startswith("json"):
        output = over_json(model, datatype, array, flat=form == "json-flat")
        assert output["shape"] == list(array.shape)
        found = np.empty(array.size, NUMPY_OF[datatype])
        found[:] = output["data"]
        assert tensors.to_bytes(found) == raw
    elif form == "binary":
        output, tail = over_binary(model, datatype, array)
        assert output["shape"] == list(array.shape)
        assert tail == raw
    else:
        typed = form == "grpc-typed" and datatype in codec.CONTENTS_OF
        answer = over_grpc(model, datatype, array, raw=not typed)
        assert list(answer.outputs[0].shape) == list(array.shape)
        assert answer.outputs[0].datatype == datatype
        if typed:
            values = list(getattr(answer.outputs[0].contents, codec.CONTENTS_OF[datatype]))
            found = np.empty(array.size, NUMPY_OF[datatype])
            found[:] = [value.decode() for value in values] if datatype == "BYTES" else values
            assert tensors.to_bytes(found) == raw
        else:
            assert answer.raw_output_contents[0] == raw


@pytest.mark.parametrize("datatype", list(ELEMENT_TYPES))
def test_the_signature_is_the_graphs_own(datatype: str) -> None:
    model = opened(identity, datatype, ("n", 3, None))
    assert model.session.signature.inputs == {"x": TensorSpec("x", datatype, (-1, 3, -1))}
    assert model.session.signature.outputs == {"y": TensorSpec("y", datatype, (-1, 3, -1))}
    assert model.session.signature.batched


def _mean() -> bytes:
    node = helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1)
    return graph(
        [node, helper.make_node("Sub", ["x", "m"], ["y"])],
        [Tensor("x", "FP32", ("n", 2))],
        [Tensor("y", "FP32", ("n", 2))],
    )


def _nonzero() -> bytes:
    node = helper.make_node("NonZero", ["x"], ["y"])
    return graph([node], [Tensor("x", "FP32", ("n", 2))], [Tensor("y", "INT64", ("k", "p"))])


def _two_lengths() -> bytes:
    node = helper.make_node("Concat", ["a", "b"], ["y"], axis=0)
    return graph([node], [Tensor("a", "FP32", ("n",)), Tensor("b", "FP32", ("m",))], [Tensor("y", "FP32", ("k",))])


@pytest.mark.parametrize(
    ("make", "arguments"),
    [(identity, ("FP32", (4, 2))), (identity, ("FP32", ())), (_mean, ()), (_nonzero, ()), (_two_lengths, ())],
    ids=["fixed", "scalar", "rows see each other", "rows are lost", "two lengths"],
)
def test_rows_of_clients_share_no_run_unless_they_were_seen_to_be_independent(make: Any, arguments: Any) -> None:
    assert not opened(make, *arguments).session.signature.batched


@pytest.mark.parametrize("shape", [(), (4, 2)], ids=str)
def test_a_model_without_rows_is_warmed_up(shape: tuple[int, ...], caplog: pytest.LogCaptureFixture) -> None:
    opened.__wrapped__(identity, "FP32", shape)
    assert "not warmed up" not in caplog.text


def test_several_inputs_and_outputs_are_batched_together() -> None:
    assert opened(sums).session.signature.batched


def tensor_x(shape: Any, datatype: str = "FP32", *, name: str = "x", data: Any = None, **rest: Any) -> dict[str, Any]:
    """Return an FP32 tensor of zeros, unless ``data`` says else."""
    zeros = [0.0] * (math.prod(shape) if data is None else 0)
    return {"name": name, "datatype": datatype, "shape": shape, "data": zeros if data is None else data} | rest


REFUSED: dict[str, tuple[Any, str]] = {
    "another rank": (tensor_x([3]), r"x: has shape \[3\]; the model takes \[-1, 3\] \(-1 is any\)"),
    "another dimension": (tensor_x([2, 4]), r"x: has shape \[2, 4\]; the model takes \[-1, 3\]"),
    "a negative dimension": (tensor_x([-1, 3]), "x: shape .* whole numbers from 0"),
    "a dimension that is text": (tensor_x(["1", 3], data=[]), "x: shape .* whole numbers from 0"),
    "a huge dimension": (tensor_x([2**31, 3], data=[]), "x: shape .* whole numbers"),
    "no shape": (tensor_x(None, data=[]), "x: shape must be a list"),
    "too few values": (tensor_x([1, 3], data=[1, 2]), "x: 2 values, but the shape says 3"),
    "too many rows nested": (tensor_x([1, 3], data=[[1, 2, 3], [4, 5, 6]]), "x: 2 values, but the shape says 1"),
    "ragged": (tensor_x([2, 3], data=[[1, 2, 3], [4, 5]]), r"x: nested data is not of shape \[2, 3\]"),
    "half nested": (tensor_x([2, 3], data=[[1, 2, 3], 4]), r"x: nested data is not of shape \[2, 3\]"),
    "nested too deeply": (tensor_x([1, 3], data=[[[1], [2], [3]]]), "x, row 0: a list where FP32 is needed"),
    "null": (tensor_x([1, 3], data=[1, None, 3]), "x, row 1: null where FP32 is needed"),
    "text for a number": (tensor_x([1, 3], data=[1, "2", 3]), "x, row 1: text where FP32 is needed"),
    "beyond the type": (tensor_x([1, 3], data=[1, 2, 1e39]), "x: a number is beyond"),
    "another datatype that loses": (tensor_x([1, 3], "FP64", data=[0.1, 1, 2]), "x: is FP64 with values that FP32"),
    "text for a float": (tensor_x([1, 3], "BYTES", data=["a", "b", "c"]), "x: is BYTES, must be FP32"),
    "no such datatype": (tensor_x([1, 3], "FP8"), "x: datatype 'FP8' is not one of"),
    "unknown input": (tensor_x([1, 3], name="z"), "input z is unknown; the model takes x"),
    "unknown input with a null": (tensor_x([1, 3], name="z", data=[1, None, 3]), "input z is unknown"),
    "unknown input with other values": (tensor_x([1, 3], name="z", data=["a"]), "input z is unknown"),
}


@pytest.mark.parametrize(("tensor", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_the_graph_is_refused_by_name(tensor: dict[str, Any], reason: str) -> None:
    model = opened(identity, "FP32", ("n", 3))
    with pytest.raises(InvalidRequest, match=reason):
        model.answer(v2.decode(orjson.dumps({"inputs": [tensor]}), None, model.schema).request)


@pytest.mark.parametrize(
    ("datatype", "value", "reason"),
    [
        ("UINT8", 256, "out of the range of UINT8"),
        ("UINT8", -1, "out of the range of UINT8"),
        ("INT8", 128, "out of the range of INT8"),
        ("UINT64", 2**64, "out of the range of UINT64"),
        ("INT64", -(2**63) - 1, "out of the range of INT64"),
        ("INT32", 1.5, "no whole number"),
        ("INT32", True, "a boolean where INT32 is needed"),
        ("BOOL", 1, "a number where BOOL is needed"),
        ("FP16", 65520, "beyond ±65504"),
        ("BF16", 3.4e38, "beyond ±3.3"),
        ("BYTES", 7, "a number where BYTES is needed"),
    ],
)
def test_values_beyond_their_type_are_refused(datatype: str, value: Any, reason: str) -> None:
    model = opened(identity, datatype, ("n",))
    tensor = {"name": "x", "datatype": datatype, "shape": [1], "data": [value]}
    with pytest.raises(InvalidRequest, match=reason):
        v2.decode(json.dumps({"inputs": [tensor]}).encode(), None, model.schema)


def test_rows_of_inputs_must_be_as_many() -> None:
    model = opened(sums)
    inputs = [tensor_x([1, 2], name="a"), tensor_x([2, 2], name="b")]
    with pytest.raises(InvalidRequest, match="b: has 2 rows, a has 1"):
        v2.decode(orjson.dumps({"inputs": inputs}), None, model.schema)


def test_rows_are_limited_only_where_there_are_rows() -> None:
    batched = opened(identity, "FP32", ("n", 3), rows_limit=2)
    with pytest.raises(RequestTooLarge, match="3 rows; send at most 2"):
        v2.decode(orjson.dumps({"inputs": [tensor_x([3, 3])]}), None, batched.schema)
    fixed = opened(identity, "FP32", (3, 3), rows_limit=2)
    assert v2.decode(orjson.dumps({"inputs": [tensor_x([3, 3])]}), None, fixed.schema).request.rows == 1


def test_sequences_are_refused() -> None:
    model = opened(identity, "FP32", ("n", 3))
    body = {"inputs": [tensor_x([1, 3])], "parameters": {"sequence_id": 7}}
    with pytest.raises(InvalidRequest, match="the sequence extension is not served"):
        v2.decode(orjson.dumps(body), None, model.schema)


def test_parameters_that_nobody_knows_are_left_alone() -> None:
    model = opened(identity, "FP32", ("n", 3))
    body = {"inputs": [tensor_x([1, 3], parameters={"mine": 1})], "parameters": {"priority": 3, "mine": "x"}}
    assert v2.decode(orjson.dumps(body), None, model.schema).request.rows == 1


def test_outputs_come_in_the_order_they_are_asked_for() -> None:
    model = opened(sums)
    inputs = [tensor_x([1, 2], name="a"), tensor_x([1, 2], name="b")]
    wanted = [{"name": "difference", "parameters": {"binary_data": True}}, {"name": "sum"}]
    call = v2.decode(orjson.dumps({"id": "i", "inputs": inputs, "outputs": wanted}), None, model.schema)
    body, length = v2.encode(call, model.answer(call.request), model.schema)
    answer = orjson.loads(body[:length])
    assert [output["name"] for output in answer["outputs"]] == ["difference", "sum"]
    assert answer["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert answer["outputs"][1]["data"] == [0.0, 0.0]
    assert answer["id"] == "i"


def _gather() -> bytes:
    table = helper.make_tensor("table", ELEMENT_TYPES["FP32"], [3], [0.5, 1.5, 2.5])
    nodes = [helper.make_node("Constant", [], ["t"], value=table), helper.make_node("Gather", ["t", "x"], ["y"])]
    return graph(nodes, [Tensor("x", "INT64", ("n",))], [Tensor("y", "FP32", ("n",))])


def test_values_that_the_graph_cannot_take_are_the_clients_mistake() -> None:
    model = opened(_gather)
    with pytest.raises(InvalidRequest, match=r"the model does not take this input: .*Gather"):
        model.answer(PredictRequest({"x": np.array([7])}, 1))


@pytest.mark.parametrize(
    ("model", "instances", "predictions"),
    [
        (("FP32", ("n", 2)), [[1, 2], [3, 4.5]], [[1.0, 2.0], [3.0, 4.5]]),
        (("FP32", ("n", 2)), [{"x": [1, 2]}], [[1.0, 2.0]]),
        (("FP32", ("n",)), [0.1], [0.1]),
        (("INT64", ("n", 1, 2)), [[[1, 2]]], [[[1, 2]]]),
        (("BYTES", ("n",)), ["a", "é"], ["a", "é"]),
        (("BYTES", ("n", 1)), [["a"]], [["a"]]),
        (("BOOL", ("n",)), [True, False], [True, False]),
        (("FP16", ("n", 1)), [[0.5]], [[0.5]]),
        (("BF16", ("n",)), [0.5], [0.5]),
        (("FP32", (2, 2)), [[1, 2], [3, 4]], [[1.0, 2.0], [3.0, 4.0]]),
        (("FP32", ("n", "m")), [[]], [[]]),
    ],
    ids=str,
)
def test_v1_takes_and_gives_the_rows_of_a_single_tensor(model: Any, instances: Any, predictions: Any) -> None:
    plain = opened(identity, *model)
    request = v1.decode(json.dumps({"instances": instances}).encode(), plain.schema)
    assert orjson.loads(v1.encode(plain.answer(request), plain.schema)) == {"predictions": predictions}


def test_v1_names_the_tensors_of_several() -> None:
    model = opened(sums)
    body = orjson.dumps({"instances": [{"a": [1, 2], "b": [3, 5]}, {"a": [0, 0], "b": [1, 1]}]})
    assert orjson.loads(v1.encode(model.answer(v1.decode(body, model.schema)), model.schema)) == {
        "predictions": [
            {"sum": [4.0, 7.0], "difference": [-2.0, -3.0]},
            {"sum": [1.0, 1.0], "difference": [-1.0, -1.0]},
        ]
    }


@pytest.mark.parametrize(
    ("instances", "reason"),
    [
        ([], "instances must be a list"),
        ([[1, 2], [3]], r"nested data is not of shape \[2, 2\]"),
        ([[1, 2, 3]], r"x: has shape \[1, 3\]; the model takes \[-1, 2\]"),
        ([1], r"x: has shape \[1\]; the model takes \[-1, 2\]"),
        ([[1, None]], "x, row 1: null where FP32 is needed"),
        ([[1, [2]]], "x, row 1: a list where FP32 is needed"),
        ([{"x": [1, 2]}, [3, 4]], r"instances\[1\] must be an object"),
        ([[1, 2], {"x": [1, 2]}], r"nested data is not of shape"),
        ([{"z": 1}], "input z is unknown"),
        ([{"x": [1, 2], "z": 1}], "input z is unknown"),
    ],
)
def test_v1_refuses(instances: Any, reason: str) -> None:
    model = opened(identity, "FP32", ("n", 2))
    with pytest.raises(InvalidRequest, match=reason):
        model.answer(v1.decode(json.dumps({"instances": instances}).encode(), model.schema))


def test_v1_has_no_form_for_a_scalar() -> None:
    model = opened(identity, "FP32", ())
    with pytest.raises(InvalidRequest, match=r"x: has shape \[1\]; the model takes \[\]"):
        v1.decode(b'{"instances":[1.0]}', model.schema)


async def _load(path: Path, **settings: Any) -> Predictor:
    wanted = PredictorSettings(model=path, **settings)
    return await load(wanted, clock=SystemClock(), metrics=ServerMetrics(CollectorRegistry()))


async def test_a_plain_model_is_called_by_its_files_name(tmp_path: Path) -> None:
    predictor = await _load(written(tmp_path / "doubler.onnx", identity("FP32")))
    assert (predictor.model_name, predictor.version) == ("doubler", "1")
    assert predictor.ready
    assert predictor.contract is None
    assert predictor.report.contract_digest is None
    request = PredictRequest({"x": np.array([[1.5]], np.float32)}, 1)
    answer = await predictor.predict(request, predictor.metrics.timer())
    assert answer.outputs["y"].tolist() == [[1.5]]
    await predictor.close()


def _bfloat16_from_text() -> bytes:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Cast", ["s"], ["y"], to=ELEMENT_TYPES["BF16"]),
    ]
    return graph(nodes, [Tensor("x", "BYTES", ("n",))], [Tensor("y", "BF16", (1,))])


async def test_a_graph_that_no_request_can_use_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"cannot take text \(input x\) and give BF16 \(output y\)"):
        await _load(written(tmp_path / "model.onnx", _bfloat16_from_text()))
