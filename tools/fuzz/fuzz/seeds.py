"""Inputs to begin with: whole and valid requests of every kind that a target takes."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import hpack
import numpy as np

from fairlead_server.protocol.grpc.messages import pb

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_OF_KIND: Mapping[str, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "INT16": [-32768, 32767],
    "INT64": [-(2**63), 2**63 - 1],
    "UINT64": [0, 2**64 - 1],
    "FP16": [0.5, -65504.0],
    "FP32": [1.5, -3.4e38],
    "FP64": [5e-324, 1.7e308],
    "BYTES": ["", "\u00e9\U0001f600"],
}
_DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "INT16": "<i2",
    "INT64": "<i8",
    "UINT64": "<u8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
_FIELDS = {"BOOL": "bool_contents", "UINT8": "uint_contents", "INT16": "int_contents", "INT64": "int64_contents"}
_FIELDS |= {"UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents"}


def of(target: str) -> Mapping[str, bytes]:
    """Return a target's seeds by name."""
    return {
        "http": _http,
        "v2-json": _v2_json,
        "v2-binary": _v2_binary,
        "protobuf": _protobuf,
        "frames": _frames,
    }[target]()


def _rows(values: Sequence[float] = (1, 2.5, -3, 4e3)) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [len(values) // 4, 4], "data": list(values)}


def _kinds(*, listed: bool) -> tuple[list[dict[str, Any]], bytes]:
    tensors: list[dict[str, Any]] = []
    tail = b""
    for kind, values in _OF_KIND.items():
        tensor: dict[str, Any] = {"name": f"in_{kind}", "datatype": kind, "shape": [1, 2]}
        raw = _raw(kind, values)
        tensor |= {"data": [values]} if listed else {"parameters": {"binary_data_size": len(raw)}}
        tail += b"" if listed else raw
        tensors.append(tensor)
    return tensors, tail


def _raw(kind: str, values: list[Any]) -> bytes:
    if kind == "BYTES":
        return b"".join(struct.pack("<I", len(one.encode())) + one.encode() for one in values)
    return np.array(values, _DTYPES[kind]).tobytes()


def _v2_json() -> Mapping[str, bytes]:
    column = {"name": "f", "datatype": "FP64", "shape": [2], "data": [None, 1]}
    documents: dict[str, Any] = {
        "rows": {"inputs": [_rows()]},
        "rows-of-two": {"inputs": [_rows([0.1] * 8) | {"data": [[1, 2, 3, 4], [5, 6, 7, 8]]}]},
        "rows-asked": {"id": "a", "inputs": [_rows()], "outputs": [{"name": "place"}, {"name": "twice"}]},
        "rows-as-bytes": {"inputs": [_rows()], "parameters": {"binary_data_output": True}},
        "kinds": {"inputs": _kinds(listed=True)[0]},
        "columns": {"inputs": [column, {"name": "t", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "b"]}]},
        "v1": {"instances": [[1, 2, 3, 4], [0, 0, 0, 1e-3]]},
        "v1-columns": {
            "instances": [{"f": 1.5, "i": 3, "b": True, "t": "x"}, {"f": None, "i": 0, "b": False, "t": ""}]
        },
    }
    return {name: json.dumps(document, separators=(",", ":")).encode() for name, document in documents.items()}


def _v2_binary() -> Mapping[str, bytes]:
    x = np.arange(8, dtype="<f4").tobytes()
    tensors, tail = _kinds(listed=False)
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": len(x)}}
    named = {"name": "place", "parameters": {"binary_data": True}}
    return {
        "rows": _with_length({"inputs": [tensor]}, x),
        "rows-mixed": _with_length({"inputs": [tensor], "outputs": [named, {"name": "twice"}]}, x),
        "kinds": _with_length({"inputs": tensors, "parameters": {"binary_data_output": True}}, tail),
        "no-tail": _with_length({"inputs": [_rows()]}, b""),
    }


def _with_length(document: Any, tail: bytes) -> bytes:
    head = json.dumps(document, separators=(",", ":")).encode()
    return b"%d\n" % len(head) + head + tail


def _protobuf() -> Mapping[str, bytes]:
    made: dict[str, bytes] = {}
    for raw in (False, True):
        for version in ("", "1"):
            message = pb.ModelInferRequest(model_name="rows", model_version=version, id="a")
            tensor = message.inputs.add(name="x", datatype="FP32", shape=[1, 4])
            if raw:
                message.raw_input_contents.append(np.arange(4, dtype="<f4").tobytes())
            else:
                tensor.contents.fp32_contents.extend([1, 2, 3, 4])
            made[f"rows{'-raw' * raw}{version}"] = message.SerializeToString()
        message = pb.ModelInferRequest(model_name="kinds")
        for kind, values in _OF_KIND.items():
            if not raw and kind not in _FIELDS:
                continue
            tensor = message.inputs.add(name=f"in_{kind}", datatype=kind, shape=[1, 2])
            if raw:
                message.raw_input_contents.append(_raw(kind, values))
            else:
                sent = [value.encode() if kind == "BYTES" else value for value in values]
                getattr(tensor.contents, _FIELDS[kind]).extend(sent)
        message.outputs.add(name="out_BYTES")
        message.parameters["report_states"].bool_param = True
        made[f"kinds{'-raw' * raw}"] = message.SerializeToString()
    return made


def _request(path: str, body: bytes = b"", *headers: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", *headers]
    lines += [f"content-length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def _http() -> Mapping[str, bytes]:
    bodies = _v2_json()
    infer = _request("/v2/models/rows/infer", bodies["rows"])
    told, _, binary = _v2_binary()["rows"].partition(b"\n")
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(bodies["rows"]), bodies["rows"])
    return {
        "infer": infer,
        "pipelined": infer * 3 + _request("/v2", method="GET"),
        "predict": _request("/v1/models/rows:predict", bodies["v1"], "connection: keep-alive"),
        "binary": _request("/v2/models/rows/infer", binary, f"inference-header-content-length: {told.decode()}"),
        "chunked": _request("/v2/models/rows/versions/1/infer", b"", "transfer-encoding: chunked") + chunks,
        "expect": _request("/v2/models/rows/infer", bodies["rows"], "expect: 100-continue"),
        "metadata": _request("/v2/models/kinds", method="GET") + _request("/metrics", method="GET"),
        "index": _request("/v2/repository/index", b'{"ready":true}') + _request("/v2/health/ready", method="HEAD"),
        "closing": _request("/v2/models/kinds/infer", bodies["kinds"], "connection: close") + infer,
    }


def _frames() -> Mapping[str, bytes]:
    """Without the preface, which every connection is given."""
    messages = _protobuf()
    settings = _frame(4, 0, 0, struct.pack(">HIHI", 3, 100, 4, 2**20))
    call = _call(1, _INFER, messages["rows-raw"])
    many = b"".join(_call(stream, _INFER, messages["rows"]) for stream in range(1, 41, 2))
    health, reflection = "/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    return {
        "call": settings + _frame(4, 1, 0) + call,
        "many": settings + many,
        "window": settings + _frame(8, 0, 0, struct.pack(">I", 2**20)) + call + _frame(6, 0, 0, b"12345678"),
        "kinds": settings + _call(1, _INFER, messages["kinds-raw"]) + _call(3, _INFER, messages["kinds"]),
        "cancelled": settings + call + _frame(3, 0, 1, struct.pack(">I", 8)),
        "health": settings + _call(1, health + "Check", b"") + _call(3, health + "Watch", b"\n\0"),
        "reflection": settings + _call(1, reflection, b"\x3a\x00"),
        "deadline": settings + _call(1, _INFER, messages["rows"], ("grpc-timeout", "1m"), ("grpc-encoding", "gzip")),
        "methods": settings
        + b"".join(
            _call(2 * place + 1, f"/inference.GRPCInferenceService/{name}", b"\n\4rows")
            for place, name in enumerate(
                (
                    "ServerLive",
                    "ServerReady",
                    "ServerMetadata",
                    "ModelReady",
                    "ModelMetadata",
                    "RepositoryIndex",
                    "RepositoryModelLoad",
                    "None",
                )
            )
        ),
    }


def _call(stream: int, path: str, message: bytes, *metadata: tuple[str, str]) -> bytes:
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("te", "trailers")]
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    head = bytes(encoder.encode([*fields, ("content-type", "application/grpc"), *metadata]))
    framed = b"\0" + struct.pack(">I", len(message)) + message
    return _frame(1, 4, stream, head) + _frame(0, 1, stream, framed)


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload
