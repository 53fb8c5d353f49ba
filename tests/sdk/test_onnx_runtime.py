"""ONNX Runtime writes nothing about itself and reports nothing, wherever Fairlead loads it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SCRIPT = """
import numpy
from onnx import TensorProto, helper
from fairlead.onnx_runtime import onnxruntime
x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
session = onnxruntime.InferenceSession(model.SerializeToString())
print(session.run(None, {"x": numpy.ones(1, numpy.float32)}))
"""


def test_a_session_leaves_no_identity_behind(tmp_path: Path) -> None:
    # Under these variables ONNX Runtime holds its telemetry back by itself.
    quiet = {"CI", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS"}
    variables = {name: value for name, value in os.environ.items() if name not in quiet and "XDG" not in name}
    command = [sys.executable, "-c", SCRIPT]
    ended = subprocess.run(
        command, env=variables | {"HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=True
    )
    assert "1." in ended.stdout
    assert list(tmp_path.rglob("*")) == []


def test_the_packages_load_it_in_this_way_alone() -> None:
    direct = re.compile(r"^\s*(import onnxruntime|from onnxruntime)", re.MULTILINE)
    files = [*(ROOT / "sdk/src").rglob("*.py"), *(ROOT / "model_server/src").rglob("*.py")]
    assert [file.name for file in files if direct.search(file.read_text())] == ["onnx_runtime.py"]
