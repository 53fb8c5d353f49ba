"""The peer: a BentoML service with ONNX Runtime; ``bentoml serve service:Gb``, as its documentation shows it."""

import os
from typing import Annotated

import bentoml
import numpy as np
import onnxruntime as ort
from bentoml.validators import DType, Shape


@bentoml.service(
    workers=1,
    http={"port": int(os.environ["HTTP_PORT"]), "host": "127.0.0.1"},
    logging={"access": {"enabled": False}},
)
class Gb:
    """One ONNX file."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MODEL"], options)

    @bentoml.api
    async def predict(self, instances: Annotated[np.ndarray, DType("float32"), Shape((-1, 10))]) -> np.ndarray:
        """Return the probabilities."""
        probabilities: np.ndarray = self.session.run(["probabilities"], {"input": instances})[0]
        return probabilities
