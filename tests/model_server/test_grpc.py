"""V2 over gRPC: typed and raw tensors, every method, and mistakes with their codes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from fairlead_server.errors import InvalidRequest, UnknownModel
from fairlead_server.predict.signature import NUMPY_OF
from fairlead_server.protocol import tensors
from fairlead_server.protocol.grpc import codec
from fairlead_server.protocol.grpc.index import index_messages
from fairlead_server.protocol.grpc.methods import SERVICE
from fairlead_server.protocol.schema import Schema
from support.server_process import FULL_ROW, ROW, Material, ServerProcess
from support.signatures import columns

SCHEMA = Schema("m", "1", columns(x="float32"), (), columns(p="float32"), 1000)
DATATYPES = {str: "BYTES", int: "INT64", float: "FP64", bool: "BOOL"}
Code = grpc.StatusCode


@pytest.fixture
async def channel(server: ServerProcess) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(server.grpc_address, options=[("grpc.enable_retries", 0)]) as opened:
        yield opened


async def call(channel: grpc.aio.Channel, method: str, message: bytes | Any, **metadata: str) -> bytes:
    raw = message if isinstance(message, bytes) else message.SerializeToString()
    headers = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
    answer: bytes = await channel.unary_unary(f"/{SERVICE}/{method}")(raw, timeout=10, metadata=headers)
    return answer


async def refused(channel: grpc.aio.Channel, method: str, message: bytes | Any) -> tuple[Any, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, method, message)
    return caught.value.code(), str(caught.value.details())


def infer(row: dict[str, Any] = ROW, *, raw: bool = False, **fields: Any) -> Any:
    message = pb.ModelInferRequest(model_name="arrival-delay", **fields)
    for name, value in row.items():
        datatype = DATATYPES[type(value)]
        tensor = message.inputs.add(name=name, datatype=datatype, shape=[1, 1])
        if raw:
            message.raw_input_contents.append(tensors.to_bytes(np.array([value], NUMPY_OF[datatype])))
        else:
            sent = value.encode() if datatype == "BYTES" else value
            getattr(tensor.contents, codec.CONTENTS_OF[datatype]).append(sent)
    return message


async def test_health_metadata_and_index(channel: grpc.aio.Channel, material: Material) -> None:
    assert pb.ServerLiveResponse.FromString(await call(channel, "ServerLive", b"")).live
    assert pb.ServerReadyResponse.FromString(await call(channel, "ServerReady", b"")).ready
    asked = pb.ModelReadyRequest(name="arrival-delay", version="1")
    assert pb.ModelReadyResponse.FromString(await call(channel, "ModelReady", asked)).ready
    server = pb.ServerMetadataResponse.FromString(await call(channel, "ServerMetadata", b""))
    assert "binary_tensor_data" in server.extensions
    raw = await call(channel, "ModelMetadata", pb.ModelMetadataRequest(name="arrival-delay"))
    metadata = pb.ModelMetadataResponse.FromString(raw)
    names = [tensor.name for tensor in metadata.inputs]
    assert names == [*material.contract.key_inputs, *material.contract.tensor_inputs]
    assert [tensor.name for tensor in metadata.outputs] == [output.name for output in material.contract.outputs]
    _, index = index_messages()
    models = index.FromString(await call(channel, "RepositoryIndex", b"")).models
    assert [(model.name, model.version, model.state) for model in models] == [("arrival-delay", "1", "READY")]


@pytest.mark.parametrize("row", [ROW, FULL_ROW], ids=["hydrated", "full"])
@pytest.mark.parametrize("raw", [False, True])
async def test_the_answer_is_raw_if_and_only_if_the_request_was(
    channel: grpc.aio.Channel, row: dict[str, Any], raw: bool
) -> None:
    answer = pb.ModelInferResponse.FromString(await call(channel, "ModelInfer", infer(row, raw=raw, id="7")))
    assert bool(answer.raw_output_contents) is raw
    assert all(output.HasField("contents") is not raw for output in answer.outputs)
    assert (answer.id, answer.model_name, answer.model_version) == ("7", "arrival-delay", "1")
    assert list(answer.outputs[0].shape) == [1]


async def test_requested_outputs_are_honoured_in_their_order(channel: grpc.aio.Channel) -> None:
    message = infer(raw=True)
    message.outputs.add(name="seen_plane__maker")
    message.outputs.add(name="probability_late")
    answer = pb.ModelInferResponse.FromString(await call(channel, "ModelInfer", message))
    assert [output.name for output in answer.outputs] == ["seen_plane__maker", "probability_late"]
    assert answer.raw_output_contents[0] == b"\x06\x00\x00\x00BOEING"


async def test_states_are_reported_on_request(channel: grpc.aio.Channel) -> None:
    message = infer()
    message.parameters["report_states"].bool_param = True
    answer = pb.ModelInferResponse.FromString(await call(channel, "ModelInfer", message))
    assert '"plane__seats":["PRESENT"]' in answer.parameters["feature_states"].string_param
    assert set(json.loads(answer.parameters["feature_ages_s"].string_param)) == {
        *("origin_weather", "tail_performance", "plane", "pair_performance")
    }
    assert answer.parameters["degraded"].bool_param is False


def changed(change: Any, **arguments: Any) -> bytes:
    message = infer(**arguments)
    change(message)
    encoded: bytes = message.SerializeToString()
    return encoded


MISTAKES: dict[str, tuple[bytes, Any, str]] = {
    "malformed": (b"\xff\xff\xff", Code.INVALID_ARGUMENT, "ModelInferRequest"),
    "cut off": (infer().SerializeToString()[:-3], Code.INVALID_ARGUMENT, "ModelInferRequest"),
    "text not UTF-8": (b"\x0a\x01\xff", Code.INVALID_ARGUMENT, "ModelInferRequest"),
    "empty": (b"", Code.NOT_FOUND, "''"),
    "unknown model": (pb.ModelInferRequest(model_name="x").SerializeToString(), Code.NOT_FOUND, "'x'"),
    "unknown version": (infer(model_version="9").SerializeToString(), Code.NOT_FOUND, "'9'"),
    "no inputs": (infer({}).SerializeToString(), Code.INVALID_ARGUMENT, "inputs"),
    "missing key": (infer({"hour": 5}).SerializeToString(), Code.INVALID_ARGUMENT, "tailnum"),
    "mixed": (infer(ROW | FULL_ROW).SerializeToString(), Code.INVALID_ARGUMENT, "plane__seats"),
    "unknown name": (infer(ROW | {"colour": "red"}).SerializeToString(), Code.INVALID_ARGUMENT, "colour"),
    "unknown output": (changed(lambda m: m.outputs.add(name="x")), Code.INVALID_ARGUMENT, "probability_late"),
    "no name": (changed(lambda m: setattr(m.inputs[3], "name", "")), Code.INVALID_ARGUMENT, "inputs[3]"),
    "name twice": (changed(lambda m: setattr(m.inputs[3], "name", "weekday")), Code.INVALID_ARGUMENT, "weekday"),
    "datatype": (changed(lambda m: setattr(m.inputs[3], "datatype", "X")), Code.INVALID_ARGUMENT, "hour"),
    "contents of another type": (
        changed(lambda m: setattr(m.inputs[3], "datatype", "INT32")),
        Code.INVALID_ARGUMENT,
        "int_contents",
    ),
    "typed FP16": (changed(lambda m: setattr(m.inputs[5], "datatype", "FP16")), Code.INVALID_ARGUMENT, "raw"),
    "shape": (changed(lambda m: m.inputs[3].shape.append(2)), Code.INVALID_ARGUMENT, "hour"),
    "too many rows, values not looked at": (
        changed(lambda m: m.inputs[3].shape.__setitem__(0, 10_001)),
        Code.RESOURCE_EXHAUSTED,
        "the request has 10001 rows; send at most 10000",
    ),
    "too many raw rows": (
        changed(lambda m: m.inputs[3].shape.__setitem__(0, 10_001), raw=True),
        Code.RESOURCE_EXHAUSTED,
        "10001 rows",
    ),
    "too many values": (
        changed(lambda m: m.inputs[3].contents.int64_contents.append(2)),
        Code.INVALID_ARGUMENT,
        "2 values",
    ),
    "text that is not UTF-8": (
        changed(lambda m: m.inputs[0].contents.bytes_contents.__setitem__(0, b"\xff")),
        Code.INVALID_ARGUMENT,
        "origin",
    ),
    "too few raw": (changed(lambda m: m.raw_input_contents.pop(), raw=True), Code.INVALID_ARGUMENT, "5 raw"),
    "raw of another length": (
        changed(lambda m: m.raw_input_contents.__setitem__(3, b"1"), raw=True),
        Code.INVALID_ARGUMENT,
        "hour",
    ),
    "raw beside contents": (
        changed(lambda m: m.inputs[3].contents.int64_contents.append(2), raw=True),
        Code.INVALID_ARGUMENT,
        "hour",
    ),
    "flag of another type": (
        changed(lambda m: setattr(m.parameters["report_states"], "string_param", "1")),
        Code.INVALID_ARGUMENT,
        "report_states",
    ),
    "too large": (changed(lambda m: setattr(m, "id", "x" * 2**20)), Code.RESOURCE_EXHAUSTED, ""),
}


@pytest.mark.parametrize(("message", "code", "text"), MISTAKES.values(), ids=list(MISTAKES))
async def test_infer_refuses(channel: grpc.aio.Channel, message: bytes, code: Any, text: str) -> None:
    found, details = await refused(channel, "ModelInfer", message)
    assert found == code, details
    assert text in details


@pytest.mark.parametrize("method", ["ServerLive", "ServerReady", "ModelReady", "ModelMetadata", "RepositoryIndex"])
async def test_every_method_refuses_a_malformed_message(channel: grpc.aio.Channel, method: str) -> None:
    assert (await refused(channel, method, b"\xff\xff\xff"))[0] == Code.INVALID_ARGUMENT


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata"])
async def test_unknown_models_are_not_found(channel: grpc.aio.Channel, method: str) -> None:
    request = pb.ModelReadyRequest(name="nobody")
    assert (await refused(channel, method, request))[0] == Code.NOT_FOUND
    request = pb.ModelReadyRequest(name="arrival-delay", version="9")
    assert (await refused(channel, method, request))[0] == Code.NOT_FOUND


async def test_loading_is_refused_and_unknown_methods_are_unimplemented(channel: grpc.aio.Channel) -> None:
    assert (await refused(channel, "RepositoryModelLoad", b""))[0] == Code.INVALID_ARGUMENT
    assert (await refused(channel, "RepositoryModelUnload", b""))[0] == Code.INVALID_ARGUMENT
    assert (await refused(channel, "TraceSetting", b""))[0] == Code.UNIMPLEMENTED


async def test_answers_are_counted_by_code(server: ServerProcess, channel: grpc.aio.Channel) -> None:
    def counted(code: str) -> float:
        return server.count("fairlead_requests_total", variant="logistic", protocol="v2-grpc", code=code)

    before = {code: counted(code) for code in ("OK", "INVALID_ARGUMENT", "NOT_FOUND")}
    await call(channel, "ModelInfer", infer())
    await refused(channel, "ModelInfer", b"\xff\xff")
    await refused(channel, "ModelInfer", b"")
    assert {code: counted(code) - before[code] for code in before} == dict.fromkeys(before, 1.0)


@given(raw=st.binary(max_size=300))
def test_arbitrary_bytes_are_decoded_or_refused(raw: bytes) -> None:
    with pytest.raises((InvalidRequest, UnknownModel)):
        codec.decode(raw, SCHEMA)


@given(tail=st.binary(max_size=300), cut=st.integers(0, 60))
def test_damaged_messages_are_decoded_or_refused(tail: bytes, cut: int) -> None:
    message = pb.ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents.append(1.0)
    raw = message.SerializeToString()
    with suppress(InvalidRequest, UnknownModel):
        codec.decode(raw[: len(raw) - cut] + tail, SCHEMA)
