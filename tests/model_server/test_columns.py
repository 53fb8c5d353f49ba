"""Requests with a tensor per column: what a known form reads is what the strict decoder reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_server.errors import RequestError
from fairlead_server.native import native
from fairlead_server.predict.joint import joined
from fairlead_server.protocol import v2
from fairlead_server.protocol.columns import ColumnForms
from fairlead_server.protocol.schema import Schema
from support.signatures import columns

pytestmark = pytest.mark.skipif(native is None, reason="the native gRPC engine is not built: make setup builds it")

SCHEMA = Schema(
    "m", "1", columns(a="float32", b="int64", c="float64", key="string"), ("key",), columns(p="float32"), 99
)
DATATYPES = {"a": "FP32", "b": "INT64", "c": "FP64"}


def body_of(rows: list[tuple[Any, ...]], names: str = "abc", **changes: Any) -> bytes:
    values = dict(zip("abc", zip(*rows, strict=True), strict=True))
    tensors = [
        {"name": name, "shape": [len(rows), 1], "datatype": DATATYPES[name], "data": list(values[name])}
        for name in names
    ]
    tensors[0] |= changes
    return orjson.dumps({"inputs": tensors})


def strictly(body: bytes) -> Any:
    try:
        request = v2.decode(body, None, SCHEMA).request
    except RequestError as error:
        return str(error)
    return {name: (array.dtype, array.tobytes()) for name, array in request.inputs.items()}, request.rows


def known(*bodies: bytes) -> ColumnForms:
    forms = ColumnForms(SCHEMA)
    for body in bodies:
        for _ in range(2):
            forms.learn(body, None, v2.decode(body, None, SCHEMA))
    return forms


def by_form(forms: ColumnForms, body: bytes) -> Any:
    reading = forms.read_v2(body)
    if reading is None:
        return None
    _, packed, rows = reading
    return {name: (packed[name].dtype, packed[name].tobytes()) for name in packed}, rows


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
ROWS = st.tuples(FLOATS, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False))


@given(st.lists(ROWS, min_size=1, max_size=3))
def test_numbers_of_a_known_form_are_read_to_the_last_bit(rows: list[tuple[Any, ...]]) -> None:
    forms = known(*(body_of([(1, 2, 3)] * count) for count in (1, 2, 3)))
    body = body_of(rows)
    found = by_form(forms, body)
    assert found == strictly(body) or (found is None and max(abs(row[0]) for row in rows) > 3.4e38)


@pytest.mark.parametrize(
    "body",
    [
        body_of([(1, 2.5, 3)]),
        body_of([(None, 2, 3)]),
        body_of([("1", 2, 3)]),
        body_of([(1e39, 2, 3)]),
        body_of([(1, 2**63, 3)]),
        body_of([(1, 2, 3)], "ab"),
        body_of([(1, 2, 3)], "bac"),
        body_of([(1, 2, 3)], data=[[1]]),
        body_of([(1, 2, 3)], data=[1, 1]),
        body_of([(1, 2, 3)], datatype="FP64"),
        body_of([(1, 2, 3)], name="z"),
        body_of([(1, 2, 3)]) + b" ",
        body_of([(1, 2, 3)])[:-1],
        body_of([(1, 2, 3)]).replace(b"[1]", b"[01]"),
    ],
)
def test_what_only_looks_alike_is_left_to_the_strict_decoder(body: bytes) -> None:
    assert by_form(known(body_of([(1, 2, 3)])), body) is None


@pytest.mark.parametrize(
    "body",
    [
        body_of([(1, 2, 3)], datatype="INT32"),
        body_of([(1, 2, 3)], parameters={"note": '"data":[5]'}),
        body_of([(1, 2, 3)], data=[[1]]),
        b'{"inputs":[{"name":"key","shape":[1],"datatype":"BYTES","data":["x"]}]}',
        b'{"inputs":[{"name":"a","shape":[1],"datatype":"FP32","data":[1]}],"parameters":{"report_states":true}}',
    ],
    ids=["converted", "parameters", "nested", "text", "states"],
)
def test_forms_of_other_kinds_are_not_learnt(body: bytes) -> None:
    assert by_form(known(body), body) is None


def test_orders_and_spaces_have_forms_of_their_own_and_rows_of_one_are_joined() -> None:
    rows = [(1.5, 2, 3.5), (4, 5, 6)]
    bodies = [
        body_of(rows),
        body_of(rows, "cab"),
        body_of(rows).replace(b'"data":[', b'"data": [').replace(b",", b", "),
    ]
    forms = known(*bodies)
    for body in bodies:
        assert by_form(forms, body) == strictly(body)
    packed = [reading[1] for body in (bodies[0], bodies[0], bodies[2]) if (reading := forms.read_v2(body))]
    together = joined(packed)
    assert {name: array.tolist() for name, array in together.items()} == {
        "a": [1.5, 4] * 3,
        "b": [2, 5] * 3,
        "c": [3.5, 6] * 3,
    }
    assert all(array.flags.c_contiguous for array in together.values())
    assert np.array_equal(packed[0]["b"], [2, 5])
