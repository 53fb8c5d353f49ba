"""Models of a repository: one that takes next to no time, one that takes as long as is wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

WIDTH = 16
"""Columns of input ``x`` and output ``y`` of the models."""


def write_scaled(path: Path, factor: float, *, ballast: int = 0) -> None:
    """Write a model that gives ``y = factor * x``, [n, WIDTH] float32.

    Args:
        path: Where it goes; folders are made.
        factor: What tells one model from another.
        ballast: Numbers of float32 in the file that do nothing but take memory.
    """
    constants = [helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])]
    nodes = [helper.make_node("Mul", ["x", "factor"], ["scaled" if ballast else "y"])]
    if ballast:
        weights = np.zeros(ballast, np.float32)
        constants += [
            helper.make_tensor("ballast", TensorProto.FLOAT, [ballast], weights.tobytes(), raw=True),
            helper.make_tensor("nothing", TensorProto.FLOAT, [], [0.0]),
        ]
        nodes += [
            helper.make_node("Mul", ["x", "nothing"], ["nothings"]),
            helper.make_node("ReduceMax", ["nothings"], ["most"], keepdims=0),
            helper.make_node("Cast", ["most"], ["place"], to=TensorProto.INT64),
            helper.make_node("Gather", ["ballast", "place"], ["zero"]),
            helper.make_node("Add", ["scaled", "zero"], ["y"]),
        ]
    _write(path, nodes, constants)


def write_looping(path: Path, rounds: int) -> None:
    """Write a model that multiplies ``x``, [n, WIDTH] float32, by a matrix that only turns columns, ``rounds`` times.

    A round takes about 2 us. After a multiple of WIDTH rounds ``y`` is ``x`` again.
    """
    turn = np.roll(np.eye(WIDTH, dtype=np.float32), 1, axis=1)
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["before", "turn"], ["after"]),
            helper.make_node("Identity", ["going"], ["goes_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, ["n", WIDTH]),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, ["n", WIDTH]),
        ],
    )
    constants = [
        helper.make_tensor("turn", TensorProto.FLOAT, [WIDTH, WIDTH], turn.tobytes(), raw=True),
        helper.make_tensor("rounds", TensorProto.INT64, [], [rounds]),
        helper.make_tensor("always", TensorProto.BOOL, [], [True]),
    ]
    _write(path, [helper.make_node("Loop", ["rounds", "always", "x"], ["y"], body=body)], constants)


def _write(path: Path, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "plain", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
