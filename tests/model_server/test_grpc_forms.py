"""Messages of a known form mean what the codec says they mean, and nothing else does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_server.errors import RequestError
from fairlead_server.predict.request import PredictResponse
from fairlead_server.protocol.grpc import codec
from fairlead_server.protocol.grpc.forms import InferForms
from fairlead_server.protocol.grpc.messages import pb
from fairlead_server.protocol.schema import Schema
from support.signatures import columns

SCHEMA = Schema("m", "1", columns(x="float32"), (), columns(p="float32", n="int64"), 1000)


LETTERS = np.frombuffer(b"abcd", "<f4").tolist()


def message(values: list[float], datatype: str = "FP32", dtype: str = "<f4", **fields: Any) -> bytes:
    made = pb.ModelInferRequest(model_name="m", **fields)
    made.inputs.add(name="x", datatype=datatype, shape=[len(values)])
    made.raw_input_contents.append(np.array(values, dtype).tobytes())
    return bytes(made.SerializeToString())


def told(decode: Any, raw: bytes) -> Any:
    try:
        call = decode(raw)
    except RequestError as error:
        return type(error), str(error)
    inputs = {name: (array.dtype, array.shape, array.tobytes()) for name, array in call.request.inputs.items()}
    return inputs, call.request.rows, call.id, call.outputs


def strictly(raw: bytes) -> Any:
    return codec.decode(raw, SCHEMA)


@given(st.lists(st.lists(st.floats(width=32), min_size=1, max_size=4), min_size=1, max_size=8))
def test_numbers_of_a_known_form_are_read_alike(rows: list[list[float]]) -> None:
    forms = InferForms(SCHEMA)
    for values in rows:
        assert told(forms.decode, message(values)) == told(strictly, message(values))


@given(st.binary(max_size=60), st.integers(0, 40))
def test_damaged_messages_are_told_as_the_codec_tells_them(tail: bytes, cut: int) -> None:
    forms = InferForms(SCHEMA)
    known = message([1.0, 2.0, 3.0])
    forms.decode(known)
    raw = known[: max(0, len(known) - cut)] + tail
    assert told(forms.decode, raw) == told(strictly, raw)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (message([0.0], "INT32", "<i4"), message([3.0], "INT32", "<i4")),
        (message([0.0], "INT32", "<i4"), message([2**24 + 1], "INT32", "<i4")),
        (message([1.0], id="a"), message([1.0], id="b")),
        (message(LETTERS) + b"\x1a\x06\x3a\x04abcd", message(LETTERS) + b"\x1a\x06\x3a\x04efgh"),
    ],
    ids=["another type", "a number that does not fit", "ids", "an id that looks like contents"],
)
def test_what_only_looks_alike_is_not_taken_for_it(first: bytes, then: bytes) -> None:
    forms = InferForms(SCHEMA)
    forms.decode(first)
    assert told(forms.decode, then) == told(strictly, then)


@given(st.lists(st.floats(width=32), min_size=1, max_size=4), st.booleans(), st.sampled_from(["", "7"]))
def test_answers_are_written_alike(values: list[float], degraded: bool, name: str) -> None:
    forms = InferForms(SCHEMA)
    call = strictly(message(values, id=name))
    for number in (1, 2):
        outputs: dict[str, Any] = {"p": np.array(values, np.float32) * number, "n": np.arange(len(values)) * number}
        response = PredictResponse(outputs, None, degraded=degraded)
        assert forms.encode(call, response) == codec.encode(call, response, SCHEMA)
