"""KServe predictor that hydrates ONNX models with Feast features."""
