"""V1: rows of named values in, rows of named outputs out.

``{"instances": [{"tailnum": "N14228", "hour": 5}]}`` gives ``{"predictions": [{"probability_late": 0.12}]}``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from fairlead_server.errors import InvalidRequest
from fairlead_server.predict.request import PredictRequest, PredictResponse
from fairlead_server.protocol import document
from fairlead_server.protocol.schema import Schema
from fairlead_server.protocol.tensors import Array, from_json


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
    document.refuse_repeated_names(body, 1 + sum(map(len, instances)) + document.names_in(content))
    return request


def of_content(content: dict[str, Any], schema: Schema) -> PredictRequest:
    """Read a parsed predict request.

    Raises:
        InvalidRequest: It is not a V1 request, or a value does not fit.
        RequestTooLarge: There are too many rows.
    """
    instances = _instances(content, schema)
    return PredictRequest(
        inputs={name: _column(instances, name, schema) for name in instances[0]},
        rows=len(instances),
        report_states=document.flag(document.parameters(content), "report_states"),
    )


def encode(response: PredictResponse) -> bytes:
    """Write the answer."""
    return orjson.dumps(content_of(response), option=orjson.OPT_SERIALIZE_NUMPY)


def content_of(response: PredictResponse) -> dict[str, Any]:
    """Return the answer as the object that is written; floats are numpy's, so that float32 is written shortest."""
    names = tuple(response.outputs)
    rows = zip(*map(_values, response.outputs.values()), strict=True)
    content: dict[str, Any] = {"predictions": [dict(zip(names, row, strict=True)) for row in rows]}
    if response.states is not None:
        content["parameters"] = {"feature_states": response.states, "degraded": response.degraded}
    return content


def _values(array: Array) -> list[Any]:
    return list(array) if array.dtype.kind == "f" else array.tolist()


def _instances(content: dict[str, Any], schema: Schema) -> list[dict[str, Any]]:
    instances = content.get("instances")
    if type(instances) is not list or not instances:
        raise InvalidRequest(f"instances must be a list of objects, one per row; {_example(schema)}", field="instances")
    schema.require_rows(len(instances))
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
    return instances


def _column(instances: list[dict[str, Any]], name: str, schema: Schema) -> Array:
    spec = schema.inputs.get(name)
    if spec is None:
        return np.full(len(instances), None)
    return from_json([instance[name] for instance in instances], spec.datatype, name)


def _example(schema: Schema) -> str:
    row = ", ".join(f'"{name}": …' for name in schema.key_inputs)
    return f'send {{"instances": [{{{row}}}]}}'
