"""Protobuf messages of the Open Inference Protocol to and from what the predictor takes and gives.

The messages are KServe's. An answer carries raw bytes if and only if the request did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from fairlead_server.errors import InvalidRequest
from fairlead_server.predict.request import PredictResponse
from fairlead_server.predict.signature import BYTES, NUMPY_OF
from fairlead_server.protocol.call import (
    InferCall,
    answer_parameters,
    bound_to_schema,
    refuse_sequences,
    request_of,
    shape_for,
)
from fairlead_server.protocol.grpc.messages import pb
from fairlead_server.protocol.schema import Schema
from fairlead_server.protocol.tensors import (
    Array,
    datatype_named,
    datatype_of,
    from_bytes,
    texts_from,
    to_bytes,
)

CONTENTS_OF: MappingProxyType[str, str] = MappingProxyType(
    {
        "BOOL": "bool_contents",
        "UINT8": "uint_contents",
        "UINT16": "uint_contents",
        "UINT32": "uint_contents",
        "UINT64": "uint64_contents",
        "INT8": "int_contents",
        "INT16": "int_contents",
        "INT32": "int_contents",
        "INT64": "int64_contents",
        "FP32": "fp32_contents",
        "FP64": "fp64_contents",
        BYTES: "bytes_contents",
    }
)
"""Field of ``InferTensorContents`` by datatype; FP16 and BF16 travel as raw bytes only."""


def parse(message: type[Any], raw: bytes) -> Any:
    """Read ``raw`` as a protobuf message.

    Raises:
        InvalidRequest: It is malformed.
    """
    try:
        return message.FromString(raw)
    except DecodeError:
        raise InvalidRequest(f"the message is not a valid {message.DESCRIPTOR.name}") from None


def decode(raw: bytes, schema: Schema) -> InferCall:
    """Read a ``ModelInferRequest``.

    Raises:
        InvalidRequest: The message is malformed, or a tensor does not fit.
        RequestTooLarge: There are too many rows.
        UnknownModel: It asks for another model or version.
    """
    message = parse(pb.ModelInferRequest, raw)
    schema.require_model(message.model_name, message.model_version)
    inputs = _inputs(message, schema)
    refuse_sequences(message.parameters)
    return InferCall(
        request=request_of(inputs, schema, report_states=_flag(message.parameters, "report_states")),
        id=message.id,
        outputs=_outputs(message, schema),
    )


def encode(call: InferCall, response: PredictResponse, schema: Schema) -> bytes:
    """Write the ``ModelInferResponse``."""
    answer = pb.ModelInferResponse(model_name=schema.model, model_version=schema.version, id=call.id)
    for name, value in answer_parameters(response).items():
        _set(answer.parameters[name], value)
    arrays = [(name, response.outputs[name]) for name, _ in call.outputs]
    datatypes = [datatype_of(array) for _, array in arrays]
    # Raw contents are found by the output's place, so that it is all of them or none.
    raw = any(raw for _, raw in call.outputs) or not all(datatype in CONTENTS_OF for datatype in datatypes)
    for (name, array), datatype in zip(arrays, datatypes, strict=True):
        output = answer.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            answer.raw_output_contents.append(to_bytes(array))
        else:
            values = array.reshape(-1).tolist()
            contents = [str(value).encode() for value in values] if datatype == BYTES else values
            getattr(output.contents, CONTENTS_OF[datatype]).extend(contents)
    encoded: bytes = answer.SerializeToString()
    return encoded


def _inputs(message: Any, schema: Schema) -> dict[str, Array]:
    raws = message.raw_input_contents
    if raws and len(raws) != len(message.inputs):
        raise InvalidRequest(
            f"{len(raws)} raw_input_contents for {len(message.inputs)} inputs; send one each",
            field="raw_input_contents",
        )
    inputs: dict[str, Array] = {}
    for place, tensor in enumerate(message.inputs):
        name = tensor.name
        if not name:
            raise InvalidRequest(f"inputs[{place}] has no name", field="inputs")
        if name in inputs:
            raise InvalidRequest(f"{name}: is there twice", field=name)
        if raws and tensor.HasField("contents"):
            raise InvalidRequest(f"{name}: has contents beside raw_input_contents; send one of them", field=name)
        shape = shape_for(name, list(tensor.shape), schema)
        array = _array(tensor, raws[place] if raws else None, math.prod(shape))
        inputs[name] = bound_to_schema(array, name, shape, schema)
    return inputs


def _array(tensor: Any, raw: bytes | None, count: int) -> Array:
    name: str = tensor.name
    datatype = datatype_named(tensor.datatype, name)
    if "shared_memory_region" in tensor.parameters:
        raise InvalidRequest(f"{name}: the shared memory extension is not served", field=name)
    if raw is not None:
        return from_bytes(raw, datatype, count, name)
    field = CONTENTS_OF.get(datatype)
    if field is None:
        raise InvalidRequest(f"{name}: {datatype} travels in raw_input_contents only", field=name)
    values = getattr(tensor.contents, field)
    if len(values) != count:
        raise InvalidRequest(f"{name}: {len(values)} values in {field}, but the shape says {count}", field=name)
    if datatype == BYTES:
        return texts_from(values, name)
    try:
        return np.array(values, NUMPY_OF[datatype])
    except OverflowError:
        raise InvalidRequest(f"{name}: a number is out of the range of {datatype}", field=name) from None


def _outputs(message: Any, schema: Schema) -> tuple[tuple[str, bool], ...]:
    raw = bool(message.raw_input_contents)
    names = [schema.require_output(output.name) for output in message.outputs] or list(schema.outputs)
    if len(set(names)) != len(names):
        raise InvalidRequest("an output is asked for twice", field="outputs")
    for output in message.outputs:
        for extension in ("classification", "shared_memory_region"):
            if extension in output.parameters:
                raise InvalidRequest(f"{output.name}: the extension {extension} is not served", field=output.name)
    return tuple((name, raw) for name in names)


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    if name not in parameters:
        return False
    if parameters[name].WhichOneof("parameter_choice") != "bool_param":
        raise InvalidRequest(f"parameter {name} must be a bool_param", field=name)
    return bool(parameters[name].bool_param)


def _set(parameter: Any, value: str | bool) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    else:
        parameter.string_param = value
