"""V1: rows of named values in, rows of named outputs out.

``{"instances": [{"tailnum": "N14228", "hour": 5}]}`` gives ``{"predictions": [{"probability_late": 0.12}]}``.

A model without a contract that has one input takes its rows as they are, ``{"instances": [[1.0, 2.0]]}``; with one
output it gives them so, ``{"predictions": [[0.3, 0.7]]}``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from fairlead_server.errors import InvalidRequest
from fairlead_server.predict.request import PredictRequest, PredictResponse
from fairlead_server.protocol import document
from fairlead_server.protocol.schema import Schema
from fairlead_server.protocol.tensors import Array, as_json_number, flattened, from_json


def decode(body: bytes, schema: Schema) -> PredictRequest:
    """Read a predict request.

    Names that the model does not have are passed on without values, for binding to refuse.

    Raises:
        InvalidRequest: The body is not a V1 request, or a value does not fit.
        RequestTooLarge: There are too many rows.
    """
    content = document.parse(body)
    request = of_content(content, schema)
    instances = content.pop("instances")
    names = sum(map(len, instances)) if type(instances[0]) is dict else 0
    document.refuse_repeated_names(body, 1 + names + document.names_in(content))
    return request


def of_content(content: dict[str, Any], schema: Schema) -> PredictRequest:
    """Read a parsed predict request.

    Raises:
        InvalidRequest: It is not a V1 request, or a value does not fit.
        RequestTooLarge: There are too many rows.
    """
    instances = content.get("instances")
    if type(instances) is not list or not instances:
        raise InvalidRequest(f"instances must be a list, one per row; {_example(schema)}", field="instances")
    schema.require_rows(len(instances))
    parameters = document.parameters(content)
    if len(schema.inputs) == 1 and type(instances[0]) is not dict:
        (name,) = schema.inputs
        inputs = {name: _values_of(instances, name, schema)}
    else:
        _check_objects(instances, schema)
        inputs = {name: _values_of([one[name] for one in instances], name, schema) for name in instances[0]}
    return PredictRequest(
        inputs=inputs,
        rows=len(instances) if schema.batched else 1,
        report_states=document.flag(parameters, "report_states"),
    )


def encode(response: PredictResponse, schema: Schema) -> bytes:
    """Write the answer."""
    return orjson.dumps(content_of(response, schema), option=orjson.OPT_SERIALIZE_NUMPY)


def content_of(response: PredictResponse, schema: Schema) -> dict[str, Any]:
    """Return the answer as the object that is written; floats are numpy's, so that float32 is written shortest.

    Raises:
        InvalidRequest: The model's outputs are not rows of one number of instances.
    """
    content: dict[str, Any] = {"predictions": _predictions(response, schema)}
    if response.states is not None:
        content["parameters"] = {
            "feature_states": response.states,
            "feature_ages_s": response.ages_s,
            "degraded": response.degraded,
        }
    return content


def _predictions(response: PredictResponse, schema: Schema) -> Any:
    columns = [_rows(name, array) for name, array in response.outputs.items()]
    if schema.is_plain and len(columns) == 1:
        return columns[0]
    if len({len(column) for column in columns}) > 1:
        raise InvalidRequest("the model's outputs have no common number of rows, as V1 needs; ask V2")
    names = tuple(response.outputs)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _rows(name: str, array: Array) -> list[Any]:
    """Return an output's rows, as orjson takes them."""
    if not array.ndim:
        raise InvalidRequest(f"output {name} is one value without rows, which V1 has no form for; ask V2")
    numbers = as_json_number(array)
    if numbers.dtype.kind == "f" or (numbers.ndim > 1 and numbers.dtype.kind not in "OUS"):
        return list(np.ascontiguousarray(numbers))
    rows: list[Any] = numbers.tolist()
    return rows


def _check_objects(instances: list[Any], schema: Schema) -> None:
    for row, instance in enumerate(instances):
        if type(instance) is not dict:
            raise InvalidRequest(f"instances[{row}] must be an object that names its values; {_example(schema)}")
    names = instances[0].keys()
    if not names:
        raise InvalidRequest(f"instances[0] is empty; {_example(schema)}", field="instances")
    for row, instance in enumerate(instances):
        if instance.keys() != names:
            odd = min(instance.keys() ^ names)
            here, there = (row, 0) if odd in instance else (0, row)
            raise InvalidRequest(
                f"{odd}: instances[{here}] has it and instances[{there}] has not; all rows bring the same names",
                field=odd,
            )


def _values_of(values: list[Any], name: str, schema: Schema) -> Array:
    """Return one input of all instances; of a plain model, each instance's value is one row of it."""
    spec = schema.inputs.get(name)
    if spec is None:
        return np.full(len(values), None)
    if spec.column:
        return from_json(values, spec.datatype, name)
    shape = _nested_shape(values, len(spec.shape))
    spec.require_shape(shape)
    flat = values if len(shape) == 1 else flattened(values, shape, name)
    return from_json(flat, spec.datatype, name, may_be_null=False).reshape(shape)


def _nested_shape(values: list[Any], rank: int) -> tuple[int, ...]:
    """Return the shape that the first values have; :func:`flattened` finds those that differ."""
    shape = [len(values)]
    inner = values[0]
    while type(inner) is list:
        shape.append(len(inner))
        if not inner or len(shape) > rank:
            break
        inner = inner[0]
    return tuple(shape)


def _example(schema: Schema) -> str:
    names = schema.key_inputs or tuple(schema.inputs)
    row = ", ".join(f'"{name}": …' for name in names)
    return f'send {{"instances": [{{{row}}}]}}'
