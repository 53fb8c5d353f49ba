"""The peer: an MLServer runtime over ONNX Runtime, for it ships none of its own."""

import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    """One ONNX file."""

    async def load(self) -> bool:
        """Open the session."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(self.settings.parameters.uri, options)
        self.names = [output.name for output in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run."""
        rows = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        results = self.session.run(None, {"input": rows})
        outputs = [NumpyCodec.encode_output(name, result) for name, result in zip(self.names, results, strict=True)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
