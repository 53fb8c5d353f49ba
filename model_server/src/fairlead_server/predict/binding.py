"""Binds a request's arrays to the contract by name, and refuses what does not fit, naming the field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairlead.contract import Contract, DType
from fairlead_server.errors import InvalidRequest, RequestTooLarge
from fairlead_server.hydrate.plan import ARRAY_TYPES, FLOATS, HydrationPlan
from fairlead_server.predict.request import PredictRequest
from fairlead_server.predict.signature import Signature

Array = NDArray[np.generic]

_KINDS: Mapping[DType, str] = {
    "float32": "fiu",
    "float64": "fiu",
    "int64": "iu",
    "int32": "iu",
    "bool": "b",
    "string": "OU",
}
"""Kinds of numpy arrays (``dtype.kind``) that are taken for a type: numbers may widen, never lose a fraction."""

_SCALARS: Mapping[DType, tuple[frozenset[type], type[np.generic]]] = {
    "float32": (frozenset({int, float}), np.float64),
    "float64": (frozenset({int, float}), np.float64),
    "int64": (frozenset({int}), np.int64),
    "int32": (frozenset({int}), np.int64),
    "bool": (frozenset({bool}), np.bool_),
}
"""Python's types that are taken for a type in an ``object`` array, and the array that is made of them."""


@dataclass(frozen=True, slots=True)
class FullInputs:
    """All inputs of the graph, from the client."""

    columns: Mapping[str, Array]
    """By name: shape [rows], of the contract's types; of a plain model as its signature says."""


@dataclass(frozen=True, slots=True)
class KeyInputs:
    """Join keys and request features, to be hydrated."""

    columns: Mapping[str, Array]
    """Shape [rows], of the contract's types, by name."""


@dataclass(frozen=True, slots=True)
class InputRules:
    """What the two kinds of request may bring."""

    tensors: Mapping[str, DType]
    """Inputs of the graph: a full request brings all of them."""
    keys: Mapping[str, DType]
    """Join keys and request features: a hydrated request brings all of them."""
    may_be_missing: frozenset[str]
    """Inputs of the graph that may be NaN."""
    rows_limit: int
    """Rows of one request beyond which it is refused."""

    @classmethod
    def of(cls, contract: Contract, plan: HydrationPlan, rows_limit: int) -> InputRules:
        """Return the rules of a contract under a deployment's policies."""
        may_be_missing = frozenset(feature.input for feature in plan.features if feature.takes_missing)
        return cls(contract.tensor_inputs, contract.key_inputs, may_be_missing, rows_limit)


@dataclass(frozen=True, slots=True)
class GraphRules:
    """What a request of a plain model must bring: what its graph takes."""

    signature: Signature
    rows_limit: int
    """Rows of one request beyond which it is refused."""


def bind(rules: InputRules | GraphRules, request: PredictRequest) -> FullInputs | KeyInputs:
    """Decide what a request is by the names it brings, and check every array.

    Raises:
        InvalidRequest: Names are unknown, mixed or missing, or an array does not fit.
        RequestTooLarge: There are too many rows.
    """
    if isinstance(rules, GraphRules):
        return FullInputs(_bound_to_graph(rules, request))
    if request.rows < 1:
        raise InvalidRequest("the request has no rows; send at least one")
    if request.rows > rules.rows_limit:
        raise RequestTooLarge(f"the request has {request.rows} rows; send at most {rules.rows_limit} at a time")
    names = request.inputs.keys()
    if names == rules.keys.keys():
        return KeyInputs({name: _key(name, dtype, request) for name, dtype in rules.keys.items()})
    if names == rules.tensors.keys():
        missing = rules.may_be_missing
        return FullInputs({name: _tensor(name, dtype, request, missing) for name, dtype in rules.tensors.items()})
    raise _refusal(rules, set(names))


def _bound_to_graph(rules: GraphRules, request: PredictRequest) -> Mapping[str, Array]:
    inputs, given = rules.signature.inputs, request.inputs
    if given.keys() != inputs.keys():
        unknown = given.keys() - inputs.keys()
        odd = min(unknown or inputs.keys() - given.keys())
        fault = "unknown" if unknown else "missing"
        raise InvalidRequest(f"input {odd} is {fault}; the model takes {', '.join(inputs)}", field=odd)
    for name, spec in inputs.items():
        array = given[name]
        spec.require_shape(array.shape)
        if array.dtype != spec.dtype:
            raise InvalidRequest(f"{name} has values of type {array.dtype}; it takes {spec.datatype}", field=name)
        if rules.signature.batched and len(array) != request.rows:
            raise InvalidRequest(f"{name} has {len(array)} rows, the request has {request.rows}", field=name)
    if request.rows > rules.rows_limit:
        raise RequestTooLarge(f"the request has {request.rows} rows; send at most {rules.rows_limit} at a time")
    return given


def _refusal(rules: InputRules, names: set[str]) -> InvalidRequest:
    full, hydrated = sorted(rules.tensors), sorted(rules.keys)
    sets = f"a full request has exactly {', '.join(full)}; a hydrated request has exactly {', '.join(hydrated)}"
    unknown = sorted(names - set(full) - set(hydrated))
    tensors, keys = sorted(names & set(full)), sorted(names & set(hydrated))
    if unknown:
        return InvalidRequest(f"input {unknown[0]} is unknown; {sets}", field=unknown[0])
    if tensors and keys:
        return InvalidRequest(
            f"the request mixes inputs of the model ({', '.join(tensors)}) with keys ({', '.join(keys)}); {sets}",
            field=keys[0],
        )
    missing = sorted(set(full) - names) if tensors else sorted(set(hydrated) - names)
    return InvalidRequest(f"input {missing[0]} is missing; {sets}", field=missing[0])


def _key(name: str, dtype: DType, request: PredictRequest) -> Array:
    column = _column(name, dtype, request)
    if dtype == "string" and not all(column):
        raise InvalidRequest(f"{name} is empty in row {_first(column == '')}; every row needs one", field=name)
    if dtype in FLOATS:
        _check_finite(name, column, may_be_missing=False)
    return column


def _tensor(name: str, dtype: DType, request: PredictRequest, may_be_missing: frozenset[str]) -> Array:
    column = _column(name, dtype, request)
    if dtype in FLOATS:
        _check_finite(name, column, may_be_missing=name in may_be_missing)
    return column


def _check_finite(name: str, column: Array, *, may_be_missing: bool) -> None:
    if bool(np.isfinite(column).all()):
        return
    infinite = np.isinf(column)
    if infinite.any():
        raise InvalidRequest(f"{name} is infinite, or too large for {column.dtype}, in row {_first(infinite)}", name)
    if not may_be_missing:
        raise InvalidRequest(f"{name} is missing (NaN or null) in row {_first(np.isnan(column))}; it must not be", name)


def _column(name: str, dtype: DType, request: PredictRequest) -> Array:
    array = request.inputs[name]
    if array.shape not in ((request.rows,), (request.rows, 1)):
        raise InvalidRequest(
            f"{name} has shape {list(array.shape)}; it must be [{request.rows}] or [{request.rows}, 1]", field=name
        )
    flat = array.reshape(-1)
    if flat.dtype == ARRAY_TYPES[dtype] and dtype != "string":
        return flat
    if flat.dtype.kind == "O" and dtype != "string":
        flat = _of_scalars(name, dtype, flat)
    if flat.dtype.kind not in _KINDS[dtype]:
        raise InvalidRequest(f"{name} has values of type {flat.dtype}; it takes {dtype}", field=name)
    return _as_text(name, flat) if dtype == "string" else _as_number(name, dtype, flat)


def _of_scalars(name: str, dtype: DType, values: Array) -> Array:
    """Make an array of JSON's scalars; null counts as missing where the type has that."""
    taken, wide = _SCALARS[dtype]
    scalars = [math.nan if value is None and dtype in FLOATS else value for value in values]
    for row, value in enumerate(scalars):
        if type(value) not in taken:
            kind = "null" if value is None else type(value).__name__
            raise InvalidRequest(f"{name} is {kind} in row {row}; it takes {dtype}", field=name)
    try:
        return np.array(scalars, wide)
    except OverflowError:
        raise InvalidRequest(f"{name} has a value that is too large for {dtype}", field=name) from None


def _as_text(name: str, values: Array) -> Array:
    for row, value in enumerate(values):
        if not isinstance(value, str):
            kind = "null" if value is None else type(value).__name__
            raise InvalidRequest(f"{name} is {kind} in row {row}; it takes text", field=name)
        if not (value.isascii() or _is_unicode(value)):
            raise InvalidRequest(f"{name} is not valid Unicode in row {row}", field=name)
    return values.astype(np.object_)


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can carry it; JSON may bring half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _as_number(name: str, dtype: DType, values: Array) -> Array:
    target = ARRAY_TYPES[dtype]
    if target.kind == "i":
        limits = np.iinfo(target.name)
        if values.min() < limits.min or values.max() > limits.max:
            raise InvalidRequest(f"{name} has a value that is too large for {dtype}", field=name)
    with np.errstate(over="ignore"):
        return values.astype(target)


def _first(mask: Array) -> int:
    return int(np.argmax(mask))
