"""Plain ONNX models, made node by node, and their way through a codec and ONNX Runtime without a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import onnx
from onnx import TensorProto, helper

from fairlead.contract import sha256
from fairlead_server.hydrate.thread import WorkerThread
from fairlead_server.predict.binding import FullInputs, GraphRules, bind
from fairlead_server.predict.request import PredictRequest, PredictResponse
from fairlead_server.predict.session import ModelFile, Session, open_session
from fairlead_server.protocol.schema import Schema

Side = int | str | None
"""A dimension: fixed, named, or free without a name."""

ELEMENT_TYPES = MappingProxyType(
    {
        "BOOL": TensorProto.BOOL,
        "UINT8": TensorProto.UINT8,
        "UINT16": TensorProto.UINT16,
        "UINT32": TensorProto.UINT32,
        "UINT64": TensorProto.UINT64,
        "INT8": TensorProto.INT8,
        "INT16": TensorProto.INT16,
        "INT32": TensorProto.INT32,
        "INT64": TensorProto.INT64,
        "FP16": TensorProto.FLOAT16,
        "BF16": TensorProto.BFLOAT16,
        "FP32": TensorProto.FLOAT,
        "FP64": TensorProto.DOUBLE,
        "BYTES": TensorProto.STRING,
    }
)
"""ONNX' element type by the protocol's datatype."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a graph."""

    name: str
    datatype: str
    shape: Sequence[Side]


def graph(nodes: Sequence[onnx.NodeProto], inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bytes:
    """Return a model's file."""
    described = [
        [helper.make_tensor_value_info(t.name, ELEMENT_TYPES[t.datatype], list(t.shape)) for t in tensors]
        for tensors in (inputs, outputs)
    ]
    made = helper.make_graph(list(nodes), "plain", *described)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def identity(datatype: str, shape: Sequence[Side] = ("n", "m")) -> bytes:
    """Return a model that gives its input ``x`` back as ``y``."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return graph([node], [Tensor("x", datatype, shape)], [Tensor("y", datatype, shape)])


def sums(shape: Sequence[Side] = ("n", 2)) -> bytes:
    """Return a model with two inputs and two outputs: FP32 ``a`` and ``b``, ``sum`` and ``difference``."""
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    return graph(
        nodes,
        [Tensor("a", "FP32", shape), Tensor("b", "FP32", shape)],
        [Tensor("sum", "FP32", shape), Tensor("difference", "FP32", shape)],
    )


def written(path: Path, content: bytes) -> Path:
    """Write a model's file and return its path."""
    path.write_bytes(content)
    return path


@dataclass(frozen=True, slots=True)
class Opened:
    """A model's session and schema."""

    session: Session
    schema: Schema

    def answer(self, request: PredictRequest) -> PredictResponse:
        """Bind and run a request, in the caller's thread."""
        bound = bind(GraphRules(self.session.signature, self.schema.rows_limit), request)
        assert isinstance(bound, FullInputs)
        return PredictResponse(self.session.run_now(bound.columns, request.rows), None, degraded=False)


@cache
def opened(make: Callable[..., bytes], *arguments: object, rows_limit: int = 1000) -> Opened:
    """Return the model that ``make`` gives for ``arguments``, opened as a server does."""
    content = make(*arguments)
    session, contract = open_session(
        ModelFile(content, sha256(content)), "plain.onnx", WorkerThread("plain"), may_be_plain=True
    )
    assert contract is None
    return Opened(session, Schema.of_graph(session.signature, "plain", "1", rows_limit))
