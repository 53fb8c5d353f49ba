"""KServe predictor that hydrates ONNX models with Feast features."""

__version__ = "0.1.0"
