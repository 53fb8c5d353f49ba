"""From decoded inputs to named outputs: binding by name, hydration, ONNX Runtime."""
