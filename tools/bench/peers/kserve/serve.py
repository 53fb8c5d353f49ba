"""The peer: KServe's SDK with ONNX Runtime, as its documentation shows it; ``serve.py HTTP_PORT GRPC_PORT [quiet]``.

``quiet`` has no access log, no trace of stages and no latency line.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import numpy as np
import onnxruntime as ort
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve import logging as kserve_logging
from kserve.utils.utils import generate_uuid

DATATYPES = {"tensor(int64)": "INT64", "tensor(float)": "FP32"}


class OnnxModel(Model):
    """One ONNX file; V1 answers the probabilities, V2 all outputs."""

    def load(self) -> bool:
        """Open the session."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MODEL"], options)
        self.outputs = [(output.name, DATATYPES[output.type]) for output in self.session.get_outputs()]
        self.ready = True
        return self.ready

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """Run."""
        del headers, response_headers
        if not isinstance(payload, InferRequest):
            rows = np.array(payload["instances"], dtype=np.float32)
            return {"predictions": self.session.run(None, {"input": rows})[1].tolist()}
        results = self.session.run(None, {"input": payload.inputs[0].as_numpy()})
        outputs = []
        for (name, datatype), result in zip(self.outputs, results, strict=True):
            # The cheapest form that answers rightly: an array in data= fails in gRPC with raw outputs.
            output = InferOutput(name, list(result.shape), datatype, data=None if payload.from_grpc else result)
            if payload.from_grpc:
                output.set_data_from_numpy(result, binary_data=payload.use_binary_outputs)
            outputs.append(output)
        return InferResponse(
            payload.id or generate_uuid(),
            self.name,
            outputs,
            requested_outputs=payload.request_outputs,
            use_binary_outputs=payload.use_binary_outputs,
        )


def main(http_port: str, grpc_port: str, *, quiet: bool) -> None:
    """Serve until terminated."""
    del sys.argv[1:]  # kserve reads the command line
    model = OnnxModel("gb")
    model.load()
    if quiet:
        kserve_logging.configure_logging()
        for name in ("kserve", "kserve.trace", "uvicorn.access"):
            logging.getLogger(name).setLevel(logging.WARNING)
    ModelServer(http_port=int(http_port), grpc_port=int(grpc_port), enable_latency_logging=not quiet).start([model])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], quiet="quiet" in sys.argv[3:])
