"""The floor of grpcio: its sync server, bytes in and out, the few fields read by hand; ``serve.py GRPC_PORT``.

Not a server to use: it takes any call for a ModelInfer of the one model. What a full server on grpcio costs is more.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import onnxruntime as ort

THREADS = 4
RAW_INPUT = 7 << 3 | 2


def varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number at ``at``, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:  # noqa: PLR2004 -- the last byte of a number
            return value, at
        shift += 7


def raw_input(message: bytes) -> bytes:
    """Return the first of a ModelInferRequest's raw contents."""
    at = 0
    while True:
        tag, at = varint(message, at)
        size, at = varint(message, at)
        if tag == RAW_INPUT:
            return message[at : at + size]
        at += size


def field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field of a message shorter than 16 KiB."""
    size = len(content)
    length = bytes((size,)) if size < 128 else bytes((size & 127 | 128, size >> 7))  # noqa: PLR2004 -- a varint
    return bytes((number << 3 | 2,)) + length + content


def main(port: str) -> None:
    """Serve until terminated."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(os.environ["MODEL"], options)

    def infer(message: bytes, _: grpc.ServicerContext) -> bytes:
        rows = np.frombuffer(raw_input(message), np.float32).reshape(-1, 10)
        label, probabilities = session.run(None, {"input": rows})
        count = bytes((len(label),))
        return b"".join(
            (
                field(1, b"gb"),
                field(5, field(1, b"label") + field(2, b"INT64") + field(3, count)),
                field(5, field(1, b"probabilities") + field(2, b"FP32") + field(3, count + b"\x02")),
                field(6, label.tobytes()),
                field(6, probabilities.tobytes()),
            )
        )

    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    server = grpc.server(ThreadPoolExecutor(THREADS))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(sys.argv[1])
