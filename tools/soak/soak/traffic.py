"""What is asked: the bench's rows over every protocol, and a few broken requests with what each may be answered."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import hpack
from bench.cases import Protocol
from bench.model import Asked
from bench.ours import experiment_headers
from bench.systems import PATHS

from bench import questions

UNITS = 2000
"""Units of the experiment; every request of theirs is exposed."""
WARM_ROWS = 64
_BROKEN_GRPC = (3, 5, 8, 12)
"""INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED, UNIMPLEMENTED."""

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Question:
    """One request."""

    kind: str
    wire: bytes
    """The HTTP request, or the blocks of headers and message of a gRPC call, see :func:`call`."""
    rows: Asked | None
    """What it asks for; None for a broken request."""
    allowed: frozenset[int]
    """Statuses that it may be answered with: HTTP's, or gRPC's."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """All questions, by kind."""

    rest: Mapping[Protocol, Sequence[Question]]
    grpc: Sequence[Question]
    broken_rest: Sequence[Question]
    broken_grpc: Sequence[Question]
    garbage: Sequence[bytes]
    """Bytes for connections of their own."""


def of(asked: Asked) -> Traffic:
    """Return the questions about ``asked``; each is of another unit of the experiment."""
    units = experiment_headers(UNITS)
    rest: dict[Protocol, list[Question]] = {"v2-json": [], "v2-binary": [], "v1-json": []}
    bodies: Mapping[Protocol, Callable[[Asked], questions.Body]] = {
        "v2-json": questions.v2_json,
        "v2-binary": questions.v2_binary,
        "v1-json": questions.v1_json,
    }
    calls: list[Question] = []
    for place, headers in enumerate(islice(units, UNITS)):
        rows = asked.part(place % WARM_ROWS, 1)
        for kind, listed in rest.items():
            wire = questions.on_the_wire(PATHS[kind], bodies[kind](rows), headers)
            listed.append(Question(kind, wire, rows, frozenset({200})))
        message = questions.grpc_frame(questions.grpc_request(rows))
        calls.append(Question("grpc", call(message, headers), rows, frozenset({0})))
    return Traffic(rest, calls, _broken_rest(asked), _broken_grpc(asked), _garbage())


def call(message: bytes, headers: Headers, path: str = questions.GRPC_METHOD) -> bytes:
    """Return a call's block of headers after its length, and its message."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "soak"), ("te", "trailers")]
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    block = bytes(encoder.encode([*fields, ("content-type", "application/grpc"), *headers.items()]))
    return struct.pack(">I", len(block)) + block + message


def _broken_rest(asked: Asked) -> list[Question]:
    path = PATHS["v2-json"]
    whole = questions.v2_json(asked.part(0, 1)).content
    document: dict[str, Any] = json.loads(whole)
    tensor = document["inputs"][0]

    def asks(content: Any, path: str = path, headers: Headers | None = None, status: int = 400) -> Question:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        wire = questions.on_the_wire(path, questions.Body(raw, {}), headers or {})
        return Question("broken", wire, None, frozenset({status}))

    return [
        asks(whole[:-2]),
        asks(b""),
        asks({"inputs": [tensor | {"shape": [2, 10]}]}),
        asks({"inputs": [tensor | {"data": [None] * 10}]}),
        asks({"inputs": [tensor | {"name": "other"}]}),
        asks({"inputs": [tensor | {"datatype": "FP31"}]}),
        asks({"inputs": [tensor | {"data": ["x"] * 10}]}),
        asks({"inputs": [tensor], "outputs": [{"name": "other"}]}),
        asks(document, "/v2/models/other/infer", status=404),
        asks(document, "/v2/nothing", status=404),
        asks(document, headers={"inference-header-content-length": "999999"}),
        asks(document, headers={"content-encoding": "gzip"}, status=415),
        asks({"instances": [[1, 2]]}, PATHS["v1-json"]),
    ]


def _broken_grpc(asked: Asked) -> list[Question]:
    def asks(message: bytes, path: str = questions.GRPC_METHOD) -> Question:
        framed = b"\0" + struct.pack(">I", len(message)) + message
        return Question("broken", call(framed, {}, path), None, frozenset(_BROKEN_GRPC))

    request = questions.grpc_request(asked.part(0, 1))
    unknown, short = questions.grpc_request(asked.part(0, 1)), questions.grpc_request(asked.part(0, 1))
    unknown.model_name = "other"
    short.raw_input_contents[0] = b"\0"
    whole: bytes = request.SerializeToString()
    return [
        asks(whole[:-3]),
        asks(b""),
        asks(unknown.SerializeToString()),
        asks(short.SerializeToString()),
        asks(whole, "/inference.GRPCInferenceService/None"),
    ]


def _garbage() -> list[bytes]:
    """Return what is sent on connections that nobody can answer well: cut off, no protocol, or too much of one."""
    half = b"POST /v2/models/gb/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    return [
        half,
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"P",
        preface,
        preface + b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0",
        preface + b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\x05\x01\x04\0\0\0\x01\xff\xff\xff\xff\xff",
        preface + b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\0\x06\0\0\0\0\0",
    ]
