"""Answers of all shapes, checked against what ONNX Runtime says."""

import json

import numpy as np
import pytest
from bench.model import Asked
from bench.questions import Answer, WrongAnswer, check_grpc, check_rest, on_the_wire, v2_binary, v2_json

from fairlead_server.protocol.grpc.messages import pb

ASKED = Asked(
    (np.arange(20).reshape(2, 10) / 3).astype(np.float32),
    np.array([0, 1], np.int64),
    np.array([[0.75, 0.25], [0.125, 0.875]], np.float32),
)


def answered(content: object, status: int = 200) -> Answer:
    return Answer(status, {}, json.dumps(content).encode())


def test_every_shape_of_v1_is_read() -> None:
    rows = ASKED.probabilities.tolist()
    check_rest(answered(rows), ASKED)
    check_rest(answered({"predictions": rows}), ASKED)
    check_rest(answered({"predictions": [{"label": 0, "probabilities": row} for row in rows]}), ASKED)


def test_v2_with_wrong_labels_is_a_wrong_answer() -> None:
    outputs = [
        {"name": "label", "shape": [2], "datatype": "INT64", "parameters": None, "data": [1, 1]},
        {"name": "probabilities", "shape": [2, 2], "datatype": "FP32", "data": [0.75, 0.25, 0.125, 0.875]},
    ]
    with pytest.raises(WrongAnswer, match="labels"):
        check_rest(answered({"outputs": outputs}), ASKED)


@pytest.mark.parametrize(
    "content", [{"predictions": [[0.7, 0.3], [0.1, 0.9]]}, {"predictions": []}, {"error": "no"}, 7]
)
def test_another_answer_is_wrong(content: object) -> None:
    with pytest.raises(WrongAnswer):
        check_rest(answered(content), ASKED)


def test_a_refusal_is_a_wrong_answer() -> None:
    with pytest.raises(WrongAnswer, match="status 429"):
        check_rest(answered({}, 429), ASKED)


def test_binary_outputs_are_read_by_their_sizes() -> None:
    outputs = [
        {"name": "label", "shape": [2], "datatype": "INT64", "parameters": {"binary_data_size": 16}},
        {"name": "probabilities", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": 16}},
    ]
    head = json.dumps({"outputs": outputs}).encode()
    raw = ASKED.labels.tobytes() + ASKED.probabilities.tobytes()
    check_rest(Answer(200, {"inference-header-content-length": str(len(head))}, head + raw), ASKED)


def test_typed_contents_of_grpc_are_read() -> None:
    service = pb.ModelInferResponse()
    output = service.outputs.add(name="probabilities", datatype="FP32", shape=[2, 2])
    output.contents.fp32_contents.extend(ASKED.probabilities.ravel().tolist())
    check_grpc(service, ASKED)


def test_numbers_go_out_in_the_fewest_digits_that_are_that_float32() -> None:
    data = json.loads(v2_json(ASKED).content)["inputs"][0]["data"]
    assert np.array(data, np.float32).tolist() == ASKED.rows.ravel().tolist()
    assert b"0.33333334" in v2_json(ASKED).content


def test_a_request_on_the_wire_has_its_length_and_headers() -> None:
    wire = on_the_wire("/v2/models/gb/infer", v2_binary(ASKED), {"x-unit-id": "N1"})
    head, _, body = wire.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert b"x-unit-id: N1" in head
    assert body.endswith(ASKED.rows.tobytes())
