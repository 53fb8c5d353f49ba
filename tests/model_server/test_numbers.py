"""Lists of JSON numbers are read as the strict decoder reads them, natively and not, or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_server.errors import RequestError
from fairlead_server.native import native
from fairlead_server.protocol.numbers import KINDS, reader, rows_reader
from fairlead_server.protocol.tensors import from_json

WAYS = [False, True] if native is not None else [False]
_EDGES = """
3.4028234663852886e38 3.4028235677973366e38 3.4028236e38 1e39 1e400 5e-324 1e-46 -0 -0.0 0e0 127 128 -129 255 65536
2147483648 9223372036854775807 9223372036854775808 -9223372036854775809 18446744073709551615 18446744073709551616
16777217 9007199254740993 1.0 1e2 01 +1 .5 1. 1e - null true "1" NaN Infinity [1] 1,2 \uff11
"""


def strictly(text: bytes, datatype: str, count: int) -> bytes | None:
    try:
        values = orjson.loads(text)
        return None if len(values) != count else from_json(values, datatype, "x", may_be_null=False).tobytes()
    except (RequestError, ValueError, TypeError):
        return None


@pytest.fixture(params=WAYS, ids=["struct", "native"][: len(WAYS)])
def natively(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def read(text: bytes, datatype: str, count: int, natively: bool) -> bytes | None:
    return reader(datatype, count, natively=natively)(b"<" + text + b">", 1, 1 + len(text))


@pytest.mark.parametrize("datatype", KINDS)
def test_edges(datatype: str, natively: bool) -> None:
    for number in [*_EDGES.split(), "", "1 1"]:
        text = f"[{number}]".encode()
        found = read(text, datatype, 1, natively)
        assert found in (None, strictly(text, datatype, 1)), number


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20), st.sampled_from(["FP32", "FP64"]))
def test_floats_are_read_to_the_last_bit(values: list[float], datatype: str) -> None:
    text = orjson.dumps(values)
    wanted = strictly(text, datatype, len(values))
    for way in WAYS:
        found = read(text, datatype, len(values), way)
        assert found == wanted or (found is None and max(map(abs, values)) > 3.4e38)


@given(st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=9), st.sampled_from(list(KINDS)))
def test_integers_are_read_as_they_are(values: list[int], datatype: str) -> None:
    text = orjson.dumps(values)
    for way in WAYS:
        assert read(text, datatype, len(values), way) == strictly(text, datatype, len(values))


@given(st.text("0123456789+-.eE, \t\n[]nultr", max_size=24), st.sampled_from(list(KINDS)), st.integers(0, 4))
def test_what_is_no_list_of_numbers_is_not_read(text: str, datatype: str, count: int) -> None:
    raw = f"[{text}]".encode()
    wanted = strictly(raw, datatype, count)
    for way in WAYS:
        assert read(raw, datatype, count, way) in (None, wanted)


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=3), max_size=5))
def test_rows_have_one_width(values: list[list[float]]) -> None:
    text = orjson.dumps(values)
    fits = 0 < len(values) <= 4 and all(len(row) == 2 for row in values)
    for way in WAYS:
        found: Any = rows_reader("FP32", 2, 4, natively=way)(text, 0, len(text))
        if fits and max(abs(n) for row in values for n in row) < 3.4e38:
            assert found == np.array(values, np.float32).tobytes()
        else:
            assert found is None or fits
