"""V2 (Open Inference Protocol) over REST: named tensors as JSON numbers, or as bytes after the JSON.

In the binary form a header says how long the JSON is; the bytes of the tensors that carry ``binary_data_size``
follow it in order. Both forms mix freely, in requests and in answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import orjson

from fairlead_server.errors import InvalidRequest
from fairlead_server.predict.request import PredictResponse
from fairlead_server.protocol import document
from fairlead_server.protocol.call import (
    InferCall,
    answer_parameters,
    bound_to_schema,
    refuse_sequences,
    request_of,
    shape_for,
)
from fairlead_server.protocol.schema import Schema
from fairlead_server.protocol.tensors import (
    Array,
    datatype_named,
    datatype_of,
    flattened,
    from_bytes,
    from_json,
    to_bytes,
    to_json,
)

LENGTH_HEADER = "inference-header-content-length"
"""Header that says how many bytes of a body are its JSON."""
_UNREAD: Final[Array] = np.array(None)
"""Stands for the values of an input that the model does not have, which binding refuses by its name."""


def decode(body: bytes, json_length: str | None, schema: Schema) -> InferCall:
    """Read an inference request.

    Args:
        body: JSON, or JSON with tensors' bytes after it.
        json_length: Value of ``LENGTH_HEADER``; None if the body is all JSON.
        schema: The served model.

    Raises:
        InvalidRequest: The body is not a V2 request, or a tensor does not fit.
        RequestTooLarge: There are too many rows.
    """
    length = _json_length(json_length, len(body))
    head = body[:length]
    content = document.parse(head)
    inputs = _inputs(content, memoryview(body)[length:], schema)
    document.refuse_repeated_names(head, _names(content))
    parameters = document.parameters(content)
    refuse_sequences(parameters)
    return InferCall(
        request=request_of(inputs, schema, report_states=document.flag(parameters, "report_states")),
        id=_id(content),
        outputs=_outputs(content, document.flag(parameters, "binary_data_output"), schema),
    )


def encode(call: InferCall, response: PredictResponse, schema: Schema) -> tuple[bytes, int | None]:
    """Write the answer.

    Returns:
        The body, and the length of its JSON if bytes follow it (for ``LENGTH_HEADER``).
    """
    content: dict[str, Any] = {"model_name": schema.model, "model_version": schema.version}
    if call.id:
        content["id"] = call.id
    if parameters := answer_parameters(response):
        content["parameters"] = parameters
    tails: list[bytes] = []
    content["outputs"] = [
        _output(name, response.outputs[name], tails if binary else None) for name, binary in call.outputs
    ]
    head = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([head, *tails]), len(head)) if tails else (head, None)


def _json_length(text: str | None, size: int) -> int:
    if text is None:
        return size
    if not (text.isascii() and text.isdigit() and len(text) < 16 and int(text) <= size):  # noqa: PLR2004 -- no huge int
        raise InvalidRequest(f"{LENGTH_HEADER}: {text[:32]!r} is not a length within the body's {size} bytes")
    return int(text)


def _inputs(content: Mapping[str, Any], tail: memoryview, schema: Schema) -> dict[str, Array]:
    tensors = content.get("inputs")
    if type(tensors) is not list:
        raise InvalidRequest("inputs must be a list of tensors", field="inputs")
    inputs: dict[str, Array] = {}
    start = 0
    for place, tensor in enumerate(tensors):
        name = _name(tensor, f"inputs[{place}]")
        if name in inputs:
            raise InvalidRequest(f"{name}: is there twice", field=name)
        inputs[name], start = _input(tensor, name, tail, start, schema)
    if start != len(tail):
        raise InvalidRequest(f"{len(tail) - start} bytes after the JSON belong to no tensor", field="inputs")
    return inputs


def _input(tensor: dict[str, Any], name: str, tail: memoryview, start: int, schema: Schema) -> tuple[Array, int]:
    datatype = datatype_named(tensor.get("datatype"), name)
    shape = tensor.get("shape")
    if type(shape) is not list:
        raise InvalidRequest(f"{name}: shape must be a list of integers", field=name)
    shape = shape_for(name, shape, schema)
    parameters = document.parameters(tensor, f"parameters of {name}")
    _refuse_shared_memory(parameters, name)
    size = parameters.get("binary_data_size")
    is_known = name in schema.inputs
    if size is None:
        return _from_list(tensor.get("data"), datatype, shape, name, schema) if is_known else _UNREAD, start
    if type(size) is not int or not 0 <= size <= len(tail) - start:
        raise InvalidRequest(f"{name}: binary_data_size {size!r} is not within the body", field=name)
    if "data" in tensor:
        raise InvalidRequest(f"{name}: has data and binary_data_size; send one of them", field=name)
    if not is_known:
        return _UNREAD, start + size
    array = from_bytes(bytes(tail[start : start + size]), datatype, math.prod(shape), name)
    return bound_to_schema(array, name, shape, schema), start + size


def _from_list(values: object, datatype: str, shape: tuple[int, ...], name: str, schema: Schema) -> Array:
    if type(values) is not list:
        raise InvalidRequest(f"{name}: data must be a list of {math.prod(shape)} values", field=name)
    spec = schema.inputs.get(name)
    is_column = spec is not None and spec.column
    flat = flattened(values, (*shape, 1) if is_column else shape, name)
    # Only a contract says what a missing value is.
    return bound_to_schema(from_json(flat, datatype, name, may_be_null=is_column), name, shape, schema)


def _outputs(content: Mapping[str, Any], binary: bool, schema: Schema) -> tuple[tuple[str, bool], ...]:
    wanted = content.get("outputs")
    if wanted is None or wanted == []:
        return tuple((name, binary) for name in schema.outputs)
    if type(wanted) is not list:
        raise InvalidRequest("outputs must be a list", field="outputs")
    found: dict[str, bool] = {}
    for place, output in enumerate(wanted):
        name = schema.require_output(_name(output, f"outputs[{place}]"))
        if name in found:
            raise InvalidRequest(f"output {name!r} is asked for twice", field="outputs")
        parameters = document.parameters(output, f"parameters of {name}")
        _refuse_shared_memory(parameters, name)
        if parameters.get("classification"):
            raise InvalidRequest(f"{name}: the classification extension is not served", field=name)
        found[name] = document.flag(parameters, "binary_data", default=binary)
    return tuple(found.items())


def _output(name: str, array: Array, tails: list[bytes] | None) -> dict[str, Any]:
    output: dict[str, Any] = {"name": name, "datatype": datatype_of(array), "shape": list(array.shape)}
    if tails is None:
        return output | {"data": to_json(array)}
    raw = to_bytes(array)
    tails.append(raw)
    return output | {"parameters": {"binary_data_size": len(raw)}}


def _name(tensor: object, where: str) -> str:
    if type(tensor) is not dict:
        raise InvalidRequest(f"{where} must be an object with a name", field=where)
    name = tensor.get("name")
    if type(name) is not str or not name:
        raise InvalidRequest(f"{where} has no name", field=where)
    return name


def _id(content: Mapping[str, Any]) -> str:
    found = content.get("id")
    if found is None:
        return ""
    if type(found) is not str:
        raise InvalidRequest("id must be text", field="id")
    return found


def _refuse_shared_memory(parameters: Mapping[str, Any], name: str) -> None:
    if "shared_memory_region" in parameters:
        raise InvalidRequest(f"{name}: the shared memory extension is not served", field=name)


def _names(content: dict[str, Any]) -> int:
    tensors: list[dict[str, Any]] = content["inputs"]
    rest = {name: value for name, value in content.items() if name != "inputs"}
    own = sum(len(tensor) + document.names_in(tensor.get("parameters")) for tensor in tensors)
    return 1 + document.names_in(rest) + own
