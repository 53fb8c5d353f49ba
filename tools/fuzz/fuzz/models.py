"""Models that are fuzzed: ``rows``, whose requests may be read by their form, and ``kinds`` with many datatypes."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

ROWS, KINDS = "rows", "kinds"
WIDTH = 4
KIND_OF: dict[str, int] = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "INT16": TensorProto.INT16,
    "INT64": TensorProto.INT64,
    "UINT64": TensorProto.UINT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
"""Element type in ONNX by datatype; ``kinds`` has an input ``in_<datatype>`` [-1, -1] of each, and gives it back."""


def write(folder: Path) -> dict[str, Path]:
    """Write both models and return their files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {ROWS: _rows(), KINDS: _kinds()}
    files = {name: folder / f"{name}.onnx" for name in written}
    for name, graph in written.items():
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        files[name].write_bytes(model.SerializeToString())
    return files


def _rows() -> onnx.GraphProto:
    """``x`` FP32 [n, 4] to ``twice`` FP32 [n, 4] and ``place`` INT64 [n], the place of the largest."""
    return helper.make_graph(
        [
            helper.make_node("Add", ["x", "x"], ["twice"]),
            helper.make_node("ArgMax", ["x"], ["place"], axis=1, keepdims=0),
        ],
        ROWS,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [
            helper.make_tensor_value_info("twice", TensorProto.FLOAT, ["n", WIDTH]),
            helper.make_tensor_value_info("place", TensorProto.INT64, ["n"]),
        ],
    )


def _kinds() -> onnx.GraphProto:
    """Each input given back as ``out_<datatype>``; sides are free and need not agree."""
    nodes = [helper.make_node("Identity", [f"in_{kind}"], [f"out_{kind}"]) for kind in KIND_OF]
    inputs, outputs = (
        [
            helper.make_tensor_value_info(f"{way}_{kind}", element, [f"r_{kind}", f"c_{kind}"])
            for kind, element in KIND_OF.items()
        ]
        for way in ("in", "out")
    )
    return helper.make_graph(nodes, KINDS, inputs, outputs)
