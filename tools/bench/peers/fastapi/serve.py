"""The peers on FastAPI: ``serve.py HTTP_PORT GRPC_PORT``; ``/naive`` is the usual script, ``/async`` a careful one.

Naive: pydantic in and out, a plain function that FastAPI runs in its thread pool. Careful: on the loop's thread, the
body read by orjson, shape and dtype checked by NumPy, the answer written by orjson from the array itself.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import onnxruntime as ort
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel


class Instances(BaseModel):
    """What is asked."""

    instances: list[list[float]]


class Predictions(BaseModel):
    """What is answered."""

    predictions: list[list[float]]


def application(path: str) -> FastAPI:
    """Return the application that serves the ONNX file at ``path``."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options)
    app = FastAPI()

    @app.post("/naive")
    def naive(asked: Instances) -> Predictions:
        rows = np.array(asked.instances, dtype=np.float32)
        return Predictions(predictions=session.run(None, {"input": rows})[1].tolist())

    @app.post("/async")
    async def careful(request: Request) -> Response:
        try:
            rows = np.array(orjson.loads(await request.body())["instances"], dtype=np.float32)
        except (KeyError, TypeError, ValueError) as error:
            return Response(orjson.dumps({"error": str(error)}), 400, media_type="application/json")
        (probabilities,) = session.run(["probabilities"], {"input": rows})
        body = orjson.dumps({"predictions": probabilities}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(body, media_type="application/json")

    return app


if __name__ == "__main__":
    uvicorn.run(application(os.environ["MODEL"]), port=int(sys.argv[1]), access_log=False, log_level="warning")
