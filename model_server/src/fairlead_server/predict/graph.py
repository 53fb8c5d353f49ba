"""What an ONNX graph takes and gives, for models without a contract; and whether their rows see each other."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from fairlead.onnx_runtime import onnxruntime
from fairlead_server.errors import ModelFileError
from fairlead_server.predict.signature import ANY, BYTES, Signature, TensorSpec

Array = NDArray[np.generic]
Run = Callable[[Sequence[str], Mapping[str, Array]], Sequence[Any]]
"""ONNX Runtime's ``run``: names of outputs, arrays by input name."""

_LOG = logging.getLogger(__name__)
_DATATYPES: Final = MappingProxyType(
    {
        "tensor(bool)": "BOOL",
        "tensor(uint8)": "UINT8",
        "tensor(uint16)": "UINT16",
        "tensor(uint32)": "UINT32",
        "tensor(uint64)": "UINT64",
        "tensor(int8)": "INT8",
        "tensor(int16)": "INT16",
        "tensor(int32)": "INT32",
        "tensor(int64)": "INT64",
        "tensor(float16)": "FP16",
        "tensor(bfloat16)": "BF16",
        "tensor(float)": "FP32",
        "tensor(double)": "FP64",
        "tensor(string)": BYTES,
    }
)
"""Datatype by ONNX Runtime's name of the type."""
_BFLOAT16: Final = 16
"""ONNX's number of the element type."""
_ROWS_TRIED: Final = 3
_TOLERANCES: Final = MappingProxyType({"FP16": 2e-2, "BF16": 1e-1, "FP32": 1e-3, "FP64": 1e-6})
"""By how much a row's floats may differ between runs of different size: sums are added in another order."""


def run_of(session: Any) -> Run:
    """Return what runs ``session``; BF16, which numpy does not have, goes in and out as ONNX Runtime's own values."""
    if any(node.type == "tensor(bfloat16)" for node in session.get_outputs()):

        def run_values(names: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
            values = {name: _value(array) for name, array in feed.items()}
            return [_array(value) for value in session.run_with_ort_values(names, values)]

        return run_values
    if any(node.type == "tensor(bfloat16)" for node in session.get_inputs()):

        def run_mixed(names: Sequence[str], feed: Mapping[str, Array]) -> Any:
            return session.run(names, {name: _mixed(array) for name, array in feed.items()})

        return run_mixed
    run: Run = session.run
    return run


def signature_of(session: Any, source: str) -> Signature:
    """Return what a loaded graph says of its tensors.

    Args:
        session: ONNX Runtime's.
        source: The file's name, for messages.

    Raises:
        ModelFileError: An input is no tensor that the protocol has, or no output is one.
    """
    inputs = {node.name: _spec(node) for node in session.get_inputs()}
    odd = [node for node in session.get_inputs() if inputs[node.name] is None]
    if odd:
        raise ModelFileError(f"{source}: input {odd[0].name} is {odd[0].type}, which no request can carry")
    outputs = {node.name: _spec(node) for node in session.get_outputs()}
    known = {name: spec for name, spec in outputs.items() if spec is not None}
    if not known:
        raise ModelFileError(f"{source}: no output is a tensor; convert the model with tensors as outputs")
    if len(known) < len(outputs):
        _LOG.warning("outputs left out, as they are no tensors outputs=%s", ",".join(sorted(outputs.keys() - known)))
    taken = {name: spec for name, spec in inputs.items() if spec is not None}
    _refuse_mixture(taken, known, source)
    return Signature(taken, known, batched=_has_rows(session, known))


def tried(run: Run, signature: Signature, draw: np.random.Generator) -> Signature:
    """Run the model a few times, and return its signature, batched only if rows were seen to be independent.

    A graph may have a free first dimension and still mix its rows (a mean over the batch, say); rows of two clients
    must not meet there. So some rows are run together and alone, and must give the same.

    Args:
        run: What runs the model.
        signature: What its graph says.
        draw: Where values come from.
    """
    names = list(signature.outputs)
    rows = _ROWS_TRIED if signature.batched else 0
    feed = {name: _sample(spec, rows, draw) for name, spec in signature.inputs.items()}
    try:
        together = run(names, feed)
        if not signature.batched:
            return signature
        alone = [run(names, {name: array[row : row + 1] for name, array in feed.items()}) for row in range(rows)]
    except Exception as error:  # noqa: BLE001 -- the graph may take no such values; requests will tell
        _LOG.warning("the model was not warmed up: it fails on made-up values error=%s", type(error).__name__)
        return Signature(signature.inputs, signature.outputs, batched=False)
    batched = signature.batched and all(
        _same(spec, np.asarray(whole), [np.asarray(one[place]) for one in alone])
        for place, (spec, whole) in enumerate(zip(signature.outputs.values(), together, strict=True))
    )
    return Signature(signature.inputs, signature.outputs, batched)


def _spec(node: Any) -> TensorSpec | None:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        return None
    return TensorSpec(node.name, datatype, tuple(side if type(side) is int else ANY for side in node.shape))


def _refuse_mixture(inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec], source: str) -> None:
    """Text cannot be made one of ONNX Runtime's own values, which BF16 must be; see :func:`run_of`."""
    texts = [name for name, spec in inputs.items() if spec.datatype == BYTES]
    halves = [name for name, spec in outputs.items() if spec.datatype == "BF16"]
    if texts and halves:
        raise ModelFileError(
            f"{source}: ONNX Runtime's Python interface cannot take text (input {texts[0]}) and give BF16 "
            f"(output {halves[0]}); cast the output to FP32 in the graph"
        )


def _has_rows(session: Any, outputs: Mapping[str, TensorSpec]) -> bool:
    """Return whether all first dimensions are free, and those of the inputs not named differently."""
    firsts = [tuple(node.shape[:1]) for node in session.get_inputs()]
    if not firsts or any(not first or type(first[0]) is int for first in firsts):
        return False
    if len({first[0] for first in firsts}) > 1:
        return False
    return all(spec.shape[:1] == (ANY,) for spec in outputs.values())


def _sample(spec: TensorSpec, rows: int, draw: np.random.Generator) -> Array:
    shape = tuple(1 if side == ANY else side for side in spec.shape)
    if rows:
        shape = (rows, *shape[1:])
    if spec.datatype == BYTES:
        return np.full(shape, "", np.object_)
    if spec.datatype in _TOLERANCES:
        return np.asarray(draw.normal(size=shape)).astype(spec.dtype)
    return np.asarray(draw.integers(0, 2, size=shape)).astype(spec.dtype)


def _same(spec: TensorSpec, together: Array, alone: Sequence[Array]) -> bool:
    if together.shape[:1] != (len(alone),) or any(one.shape != (1, *together.shape[1:]) for one in alone):
        return False
    apart = np.concatenate(alone)
    tolerance = _TOLERANCES.get(spec.datatype)
    if tolerance is None:
        return bool((together == apart).all())
    return np.allclose(
        together.astype(np.float64), apart.astype(np.float64), rtol=tolerance, atol=tolerance, equal_nan=True
    )


def _value(array: Array) -> Any:
    if array.dtype == ml_dtypes.bfloat16:
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(_bits(array), _BFLOAT16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(_contiguous(array))


def _mixed(array: Array) -> Any:
    return _value(array) if array.dtype == ml_dtypes.bfloat16 else array


def _bits(array: Array) -> Array:
    return _contiguous(array).view(np.uint16)


def _contiguous(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(array.shape)  # which would make a scalar one-dimensional


def _array(value: Any) -> Array:
    if value.data_type() != "tensor(bfloat16)":
        found: Array = value.numpy()
        return found
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(raw, ml_dtypes.bfloat16).reshape(value.shape())
