"""One V2 inference as every wire form of it is decoded: what to predict, and how the answer is to look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from fairlead_server.errors import InvalidRequest
from fairlead_server.predict.request import PredictRequest, PredictResponse
from fairlead_server.protocol.schema import Schema
from fairlead_server.protocol.tensors import Array, converted


@dataclass(frozen=True, slots=True)
class InferCall:
    """A decoded V2 request."""

    request: PredictRequest
    id: str
    """The client's id, given back; empty if there is none."""
    outputs: tuple[tuple[str, bool], ...]
    """Outputs to answer, in order, and whether each is answered as bytes."""


def request_of(inputs: Mapping[str, Array], *, report_states: bool) -> PredictRequest:
    """Gather decoded inputs, each of shape [rows].

    Raises:
        InvalidRequest: There are none, or one has another number of rows than the first.
    """
    if not inputs:
        raise InvalidRequest("inputs must be a list with at least one tensor", field="inputs")
    first, *others = inputs
    rows = len(inputs[first])
    for name in others:
        if len(inputs[name]) != rows:
            raise InvalidRequest(f"{name}: has {len(inputs[name])} rows, {first} has {rows}", field=name)
    return PredictRequest(inputs=inputs, rows=rows, report_states=report_states)


def bound_to_schema(array: Array, name: str, schema: Schema) -> Array:
    """Return ``array`` in the type that the schema has for ``name``; names it has not are left to binding."""
    spec = schema.inputs.get(name)
    return array if spec is None else converted(array, spec)


def answer_parameters(response: PredictResponse) -> dict[str, str | bool]:
    """Return the answer's V2 parameters: scalars only, so that the states travel as JSON text."""
    if response.states is None:
        return {}
    return {"feature_states": orjson.dumps(response.states).decode(), "degraded": response.degraded}
