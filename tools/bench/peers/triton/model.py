"""The peer: a model of Triton's Python backend, over ONNX Runtime."""

import os
import sys
from typing import Any

sys.path.append(os.environ["PACKAGES"])  # the stub's interpreter is isolated: it knows no environment but its own

import onnxruntime as ort
import triton_python_backend_utils as triton


class TritonPythonModel:
    """One ONNX file."""

    def initialize(self, _: Any) -> None:
        """Open the session."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MODEL"], options)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run each request."""
        answers = []
        for request in requests:
            rows = triton.get_input_tensor_by_name(request, "input").as_numpy()
            label, probabilities = self.session.run(None, {"input": rows})
            outputs = [triton.Tensor("label", label), triton.Tensor("probabilities", probabilities)]
            answers.append(triton.InferenceResponse(output_tensors=outputs))
        return answers
