"""Requests as they go over the wire, and what answers say, for every protocol."""

from __future__ import annotations

import http.client
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from bench.model import FEATURES, NAME, Asked
from fairlead_server.protocol.grpc.messages import pb

GRPC_METHOD = "/inference.GRPCInferenceService/ModelInfer"
TOLERANCE = 1e-5
_JSON, _BINARY = "application/json", "application/octet-stream"
_TIMEOUT_S = 20

Headers = Mapping[str, str]


class WrongAnswer(Exception):
    """A server does not answer what ONNX Runtime answers; the message says what it said."""


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body, and the headers it needs."""

    content: bytes
    headers: Headers


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status, headers by lower-case name, body."""

    status: int
    headers: Headers
    content: bytes


def v2_json(asked: Asked) -> Body:
    """Return a V2 request with the rows as JSON numbers, each in the fewest digits that are that float32."""
    shape = f"[{len(asked.rows)},{FEATURES}]"
    numbers = ",".join(str(number) for number in asked.rows.ravel())
    text = f'{{"inputs":[{{"name":"input","shape":{shape},"datatype":"FP32","data":[{numbers}]}}]}}'
    return Body(text.encode(), {"content-type": _JSON})


def v2_binary(asked: Asked) -> Body:
    """Return a V2 request with a binary tensor that asks for binary outputs."""
    raw = asked.rows.tobytes()
    size = {"binary_data_size": len(raw)}
    tensor = {"name": "input", "shape": asked.rows.shape, "datatype": "FP32", "parameters": size}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()
    return Body(head + raw, {"content-type": _BINARY, "inference-header-content-length": str(len(head))})


def v1_json(asked: Asked) -> Body:
    """Return a V1 request."""
    rows = ",".join("[" + ",".join(str(number) for number in row) + "]" for row in asked.rows)
    return Body(f'{{"instances":[{rows}]}}'.encode(), {"content-type": _JSON})


def grpc_request(asked: Asked) -> Any:
    """Return a ModelInferRequest with raw contents."""
    request = pb.ModelInferRequest(model_name=NAME, raw_input_contents=[asked.rows.tobytes()])
    request.inputs.add(name="input", datatype="FP32", shape=asked.rows.shape)
    return request


def grpc_frame(request: Any) -> bytes:
    """Return a message as gRPC sends it: not compressed, its length, its bytes."""
    content: bytes = request.SerializeToString()
    return b"\0" + struct.pack(">I", len(content)) + content


def on_the_wire(path: str, body: Body, headers: Headers) -> bytes:
    """Return the bytes of an HTTP/1.1 request."""
    length = {"content-length": str(len(body.content))}
    lines = (f"{name}: {value}\r\n" for name, value in {"host": "bench", **body.headers, **length, **headers}.items())
    return f"POST {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body.content


def post(port: int, path: str, body: Body, headers: Headers) -> Answer:
    """Send one request and return its answer.

    Raises:
        OSError: Nobody answers.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("POST", path, body.content, {**body.headers, **headers})
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, response.read())
    except http.client.HTTPException as error:
        raise ConnectionError(str(error)) from error
    finally:
        connection.close()


def infer(port: int, request: Any, headers: Headers) -> tuple[Any, Headers]:
    """Call ModelInfer; return its response, and initial and trailing metadata together.

    Raises:
        OSError: Nobody answers, or with an error.
    """
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            method = channel.unary_unary(
                GRPC_METHOD, pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
            )
            response, call = method.with_call(request, timeout=_TIMEOUT_S, metadata=tuple(headers.items()))
        except grpc.RpcError as error:
            raise ConnectionError(str(error)) from error
        return response, dict((*call.initial_metadata(), *call.trailing_metadata()))


def check_rest(answer: Answer, asked: Asked) -> None:
    """Check an answer over HTTP against what ONNX Runtime answers.

    Raises:
        WrongAnswer: It is another.
    """
    if answer.status != http.client.OK:
        raise WrongAnswer(f"status {answer.status}: {answer.content[:160]!r}")
    try:
        found = dict(_rest_outputs(answer))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise WrongAnswer(f"{error!r} in {answer.content[:160]!r}") from error
    _compare(found, asked)


def check_grpc(response: Any, asked: Asked) -> None:
    """Check a ModelInferResponse against what ONNX Runtime answers.

    Raises:
        WrongAnswer: It is another.
    """
    _compare(dict(_grpc_outputs(response)), asked)


def _rest_outputs(answer: Answer) -> Iterator[tuple[str, NDArray[Any]]]:
    json_length = int(answer.headers.get("inference-header-content-length", len(answer.content)))
    content, raw = json.loads(answer.content[:json_length]), answer.content[json_length:]
    if isinstance(content, dict) and "outputs" in content:
        yield from _v2_outputs(content["outputs"], raw)
        return
    rows = content["predictions"] if isinstance(content, dict) else content
    if rows and isinstance(rows[0], dict):
        rows = [row["probabilities"] for row in rows]
    yield "probabilities", np.array(rows, np.float32)


def _v2_outputs(outputs: Sequence[Mapping[str, Any]], raw: bytes) -> Iterator[tuple[str, NDArray[Any]]]:
    start = 0
    for output in outputs:
        size = (output.get("parameters") or {}).get("binary_data_size")
        if size is None:
            values = np.array(output["data"], _dtype(output["datatype"]))
        else:
            values = np.frombuffer(raw[start : start + size], _dtype(output["datatype"]))
            start += size
        yield output["name"], values


def _grpc_outputs(response: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    for number, output in enumerate(response.outputs):
        if response.raw_output_contents:
            values = np.frombuffer(response.raw_output_contents[number], _dtype(output.datatype))
        else:
            typed = output.contents
            values = np.array(typed.int64_contents or typed.fp32_contents or typed.fp64_contents)
        yield output.name, values


def _dtype(datatype: str) -> type[Any]:
    return {"INT64": np.int64, "FP32": np.float32, "FP64": np.float64}[datatype]


def _compare(found: Mapping[str, NDArray[Any]], asked: Asked) -> None:
    probabilities = found.get("probabilities", np.empty(0)).ravel()
    wanted = asked.probabilities.ravel()
    if probabilities.shape != wanted.shape or not np.allclose(probabilities, wanted, rtol=0, atol=TOLERANCE):
        raise WrongAnswer(f"probabilities {probabilities[:4]} instead of {wanted[:4]}")
    if "label" in found and found["label"].ravel().tolist() != asked.labels.tolist():
        raise WrongAnswer(f"labels {found['label'][:4]} instead of {asked.labels[:4]}")
