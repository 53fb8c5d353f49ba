"""Messages of a known form mean what the codec says they mean, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_server.errors import RequestError
from fairlead_server.predict.joint import Joint, Packed, Part
from fairlead_server.predict.request import PredictResponse
from fairlead_server.predict.signature import TensorSpec
from fairlead_server.protocol.call import InferCall
from fairlead_server.protocol.grpc import codec
from fairlead_server.protocol.grpc.forms import InferForm, InferForms
from fairlead_server.protocol.grpc.messages import pb
from fairlead_server.protocol.schema import Schema

X = TensorSpec("x", "FP32", (-1,))
OUTPUTS = {"p": TensorSpec("p", "FP32", (-1,)), "n": TensorSpec("n", "INT64", (-1, 2))}
SCHEMA = Schema("m", "1", {"x": X}, (), OUTPUTS, 1000)


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


class Known:
    """Reads messages by the last form that was learnt, as the server does."""

    def __init__(self) -> None:
        self.forms: dict[int, InferForm] = {}
        self.by_form = 0
        self._learning = InferForms(SCHEMA)

    def decode(self, raw: bytes) -> InferCall:
        form = self.forms.get(len(raw))
        call: InferCall = strictly(raw)
        if form is not None and raw.startswith(form.before):
            self.by_form += 1
            rows = Packed(form.layout, raw[len(form.before) :])
            return replace(call, request=replace(call.request, inputs=dict(rows), rows=form.rows))
        learnt = self._learning.learnt(raw, call)
        if learnt is not None:
            self.forms[len(raw)] = learnt
        return call


@given(st.lists(st.lists(st.floats(width=32), min_size=1, max_size=4), min_size=1, max_size=8))
def test_numbers_of_a_known_form_are_read_alike(rows: list[list[float]]) -> None:
    known = Known()
    for values in [*rows, *rows]:
        assert told(known.decode, message(values)) == told(strictly, message(values))
    assert known.by_form >= len(rows)


@given(st.binary(max_size=60), st.integers(0, 40))
def test_damaged_messages_are_told_as_the_codec_tells_them(tail: bytes, cut: int) -> None:
    known = Known()
    whole = message([1.0, 2.0, 3.0])
    known.decode(whole)
    raw = whole[: max(0, len(whole) - cut)] + tail
    assert told(known.decode, raw) == told(strictly, raw)


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
    known = Known()
    known.decode(first)
    assert not known.forms
    assert told(known.decode, then) == told(strictly, then)


@given(st.lists(st.lists(st.floats(width=32), min_size=3, max_size=3), min_size=2, max_size=6))
def test_answers_are_written_alike(requests: list[list[float]]) -> None:
    known = Known()
    call = known.decode(message(requests[0]))
    (form,) = known.forms.values()
    p = np.array(requests, np.float32).reshape(-1)
    outputs: dict[str, Any] = {"p": p, "n": np.arange(2 * len(p)).reshape(-1, 2) - 3}
    joint = Joint(outputs, len(p))
    for n in range(len(requests)):
        part = Part(joint, 3 * n, 3 * n + 3)
        assert form.answer(part) == codec.encode(call, PredictResponse(part, None, degraded=False), SCHEMA)


def test_answers_that_are_text_are_the_codecs() -> None:
    known = Known()
    call = known.decode(message([1.0]))
    (form,) = known.forms.values()
    outputs: dict[str, Any] = {"p": np.array([1.0], np.float32), "n": np.array([["a", "b"]], object)}
    part = Part(Joint(outputs, 1), 0, 1)
    assert form.answer(part) == codec.encode(call, PredictResponse(part, None, degraded=False), SCHEMA)
