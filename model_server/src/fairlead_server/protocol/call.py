"""One V2 inference as every wire form of it is decoded: what to predict, and how the answer is to look."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from fairlead_server.errors import InvalidRequest
from fairlead_server.predict.request import PredictRequest, PredictResponse
from fairlead_server.protocol.schema import Schema
from fairlead_server.protocol.tensors import Array, converted, rows_of, shape_of


@dataclass(frozen=True, slots=True)
class InferCall:
    """A decoded V2 request."""

    request: PredictRequest
    id: str
    """The client's id, given back; empty if there is none."""
    outputs: tuple[tuple[str, bool], ...]
    """Outputs to answer, in order, and whether each is answered as bytes."""


def request_of(inputs: Mapping[str, Array], schema: Schema, *, report_states: bool) -> PredictRequest:
    """Gather decoded inputs, each of the shape that :func:`shape_for` returned.

    Raises:
        InvalidRequest: There are none, or one has another number of rows than the first.
    """
    if not inputs and schema.inputs:
        raise InvalidRequest("inputs must be a list with at least one tensor", field="inputs")
    if not schema.batched:
        return PredictRequest(inputs=inputs, rows=1, report_states=report_states)
    rows, first = None, ""
    for name, array in inputs.items():
        if not array.ndim:  # a name that is not the model's, which binding refuses
            continue
        if rows is None:
            rows, first = len(array), name
        elif len(array) != rows:
            raise InvalidRequest(f"{name}: has {len(array)} rows, {first} has {rows}", field=name)
    return PredictRequest(inputs=inputs, rows=1 if rows is None else rows, report_states=report_states)


def shape_for(name: str, sides: list[Any], schema: Schema) -> tuple[int, ...]:
    """Return the shape that an input is decoded to, if the model takes it; a column's is [rows].

    Raises:
        InvalidRequest: It does not.
        RequestTooLarge: There are too many rows.
    """
    spec = schema.inputs.get(name)
    if spec is not None and spec.column:
        shape: tuple[int, ...] = (rows_of(sides, name),)
    else:
        shape = shape_of(sides, name)
        if spec is not None:
            spec.require_shape(shape)
    if schema.batched and shape:
        schema.require_rows(shape[0])
    return shape


def bound_to_schema(array: Array, name: str, shape: tuple[int, ...], schema: Schema) -> Array:
    """Return a flat array in its shape and the schema's type for ``name``; names it has not are left to binding."""
    spec = schema.inputs.get(name)
    typed = array if spec is None else converted(array, spec)
    return typed if len(shape) == 1 else typed.reshape(shape)


def refuse_sequences(parameters: Container[str]) -> None:
    """Refuse a request that is one of a sequence: no state is kept between requests.

    Raises:
        InvalidRequest: It is.
    """
    if "sequence_id" in parameters:
        raise InvalidRequest("the sequence extension is not served; leave out sequence_id", field="sequence_id")


def answer_parameters(response: PredictResponse) -> dict[str, str | bool]:
    """Return the answer's V2 parameters: scalars only, so that the states travel as JSON text."""
    if response.states is None:
        return {}
    return {
        "feature_states": orjson.dumps(response.states).decode(),
        "feature_ages_s": orjson.dumps(response.ages_s).decode(),
        "degraded": response.degraded,
    }
