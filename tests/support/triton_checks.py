"""Triton's clients against a running server; a program of its own.

Its gRPC messages and KServe's have the same names, so that one process can load only one of them.
Usage: ``python triton_checks.py HTTP_ADDRESS GRPC_ADDRESS PROBABILITY FULL_ROW_JSON``;
ends with 0 when all is as it should be.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

MODEL = "arrival-delay"
HYDRATED = {"origin": "EWR", "dest": "IAH", "tailnum": "N14228", "hour": 5, "weekday": 4, "distance": 1400.0}
DTYPES: dict[type, tuple[str, Any]] = {
    str: ("BYTES", np.object_),
    int: ("INT64", np.int64),
    float: ("FP64", np.float64),
    bool: ("BOOL", np.bool_),
}


def inputs(library: Any, row: dict[str, Any], **binary: bool) -> list[Any]:
    tensors = []
    for name, value in row.items():
        datatype, dtype = DTYPES[type(value)]
        tensor = library.InferInput(name, [3, 1], datatype)
        tensor.set_data_from_numpy(np.array([[value]] * 3, dtype), **binary)
        tensors.append(tensor)
    return tensors


def check_health_and_metadata(client: Any, *, as_json: dict[str, bool]) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")
    assert client.get_server_metadata(**as_json)["name"] == "fairlead"
    metadata = client.get_model_metadata(MODEL, **as_json)
    names = [tensor["name"] for tensor in metadata["inputs"]]
    assert names[:3] == ["origin", "tailnum", "dest"], names
    assert "plane__seats" in names
    assert metadata["versions"] == ["1"]


def check_http(address: str, full: dict[str, Any], probability: float) -> None:
    library = tritonclient.http
    client = library.InferenceServerClient(address)
    check_health_and_metadata(client, as_json={})
    index = client.get_model_repository_index()
    assert index == [{"name": MODEL, "version": "1", "state": "READY"}], index
    for binary_in in (False, True):
        for wanted in (None, False, True):
            outputs = None if wanted is None else [library.InferRequestedOutput("probability_late", binary_data=wanted)]
            for row in (HYDRATED, full):
                answer = client.infer(
                    MODEL, inputs(library, row, binary_data=binary_in), outputs=outputs, request_id="7"
                )
                found = answer.as_numpy("probability_late")
                assert found.shape == (3,), found
                assert answer.get_response()["id"] == "7"
                assert row is HYDRATED or np.allclose(found, probability, atol=1e-6), found
            if wanted is None:
                assert answer.as_numpy("seen_plane__maker")[0] in (b"BOEING", "BOEING")
    states = client.infer(MODEL, inputs(library, HYDRATED), parameters={"report_states": True}).get_response()
    assert "NOT_FOUND" in states["parameters"]["feature_states"]
    expect_refusal(client, library, "404", model="nobody")
    expect_refusal(client, library, "400", outputs=[library.InferRequestedOutput("nothing")])


def check_grpc(address: str, full: dict[str, Any], probability: float) -> None:
    library = tritonclient.grpc
    client = library.InferenceServerClient(address)
    check_health_and_metadata(client, as_json={"as_json": True})
    index = client.get_model_repository_index(as_json=True)
    assert index == {"models": [{"name": MODEL, "version": "1", "state": "READY"}]}, index
    for outputs in (None, [library.InferRequestedOutput("probability_late")]):
        for row in (HYDRATED, full):
            answer = client.infer(MODEL, inputs(library, row), outputs=outputs, request_id="7")
            found = answer.as_numpy("probability_late")
            assert found.shape == (3,), found
            assert answer.get_response().id == "7"
            assert row is HYDRATED or np.allclose(found, probability, atol=1e-6), found
    states = client.infer(MODEL, inputs(library, HYDRATED), parameters={"report_states": True}).get_response()
    assert "NOT_FOUND" in states.parameters["feature_states"].string_param
    expect_refusal(client, library, "NOT_FOUND", model="nobody")
    expect_refusal(client, library, "NOT_FOUND", model_version="9")
    expect_refusal(client, library, "INVALID_ARGUMENT", outputs=[library.InferRequestedOutput("x")])


def expect_refusal(client: Any, library: Any, code: str, *, model: str = MODEL, **arguments: Any) -> None:
    with pytest.raises(tritonclient.http.InferenceServerException) as refused:
        client.infer(model, inputs(library, HYDRATED), **arguments)
    assert code in str(refused.value.status()), refused.value


if __name__ == "__main__":
    http_address, grpc_address, expected, full_row = sys.argv[1:]
    check_http(http_address, json.loads(full_row), float(expected))
    check_grpc(grpc_address, json.loads(full_row), float(expected))
