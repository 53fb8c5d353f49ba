"""ONNX Runtime, told to keep to itself what it sees: ``from fairlead.onnx_runtime import onnxruntime``.

Since 1.29 its builds for Linux report to their maker (file names, hashes and shapes of models, hardware) and keep an
identity below the user's home, unless the environment says otherwise before the library is loaded.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
