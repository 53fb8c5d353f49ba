"""Triton's clients against a running server of plain models, one per datatype; a program of its own.

See ``triton_checks`` for why. Usage: ``python triton_plain_checks.py HTTP_ADDRESS GRPC_ADDRESS``; each model
``identity-DATATYPE`` gives its input ``x`` [n, 2] back as ``y``. Ends with 0 when all is as it should be.
"""

from __future__ import annotations

import sys
from typing import Any

import ml_dtypes
import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import triton_to_np_dtype

NUMBERS = ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64")
ROUNDS = 2


def values_of(datatype: str) -> Any:
    if datatype == "BYTES":
        return np.array([[b"a", "é".encode()], [b"", b"long" * 99]], np.object_)
    if datatype == "BOOL":
        return np.array([[True, False], [False, False]])
    return np.array([[0, 1], [2, 127]], ml_dtypes.bfloat16 if datatype == "BF16" else triton_to_np_dtype(datatype))


def check(library: Any, client: Any, datatype: str, **binary: bool) -> None:
    values = values_of(datatype)
    model = f"identity-{datatype}"
    tensor = library.InferInput("x", list(values.shape), datatype)
    tensor.set_data_from_numpy(values, **binary)
    output = library.InferRequestedOutput("y", **binary)
    answer = client.infer(model, [tensor], outputs=[output], request_id="7", model_version="1")
    found = answer.as_numpy("y")
    assert found.shape == values.shape, (datatype, found)
    if datatype == "BYTES":
        found = np.array([[v.encode() if isinstance(v, str) else v for v in row] for row in found], np.object_)
    assert (found == values).all(), (datatype, found)


def check_metadata(metadata: dict[str, Any], datatype: str) -> None:
    shape = [int(side) for side in metadata["inputs"][0]["shape"]]
    assert (metadata["inputs"][0]["name"], metadata["inputs"][0]["datatype"], shape) == ("x", datatype, [-1, 2])
    assert metadata["outputs"][0]["name"] == "y"


def check_statistics(told: dict[str, Any], runs: int) -> None:
    (stats,) = told["model_stats"]
    assert (stats["name"], stats["version"]) == ("identity-FP32", "1")
    assert int(stats["inference_count"]) == 2 * runs, stats
    assert int(stats["execution_count"]) == runs, stats
    assert int(stats["last_inference"]) > 0
    inferences = stats["inference_stats"]
    assert int(inferences["success"]["count"]) == runs, stats
    assert int(inferences["compute_infer"]["ns"]) > 0, stats
    assert [int(batch["batch_size"]) for batch in stats["batch_stats"]] == [2], stats


def main(http_address: str, grpc_address: str) -> None:
    http = tritonclient.http.InferenceServerClient(http_address)
    grpc = tritonclient.grpc.InferenceServerClient(grpc_address)
    assert "statistics" in http.get_server_metadata()["extensions"]
    for datatype in (*NUMBERS, "BOOL", "BYTES"):
        check(tritonclient.http, http, datatype, binary_data=True)
        if datatype not in {"FP16", "BF16"}:  # which this client does not write as JSON
            check(tritonclient.http, http, datatype, binary_data=False)
        check(tritonclient.grpc, grpc, datatype)
        check_metadata(http.get_model_metadata(f"identity-{datatype}"), datatype)
        check_metadata(grpc.get_model_metadata(f"identity-{datatype}", as_json=True), datatype)
    check_statistics(http.get_inference_statistics("identity-FP32"), 3)
    check_statistics(http.get_inference_statistics("identity-FP32", "1"), 3)
    check_statistics(grpc.get_inference_statistics("identity-FP32", as_json=True), 3)
    assert len(http.get_inference_statistics()["model_stats"]) == len(NUMBERS) + ROUNDS


if __name__ == "__main__":
    main(*sys.argv[1:])
