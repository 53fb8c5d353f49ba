"""Tensors by name: what a model takes and gives, in the words of the Open Inference Protocol.

The datatype names are the protocol's (``FP32``, ``INT64``, ``BYTES`` …); a dimension that every request may choose
is ``ANY``. A contract model's graph takes one column per feature, so that its signature is made of columns; a plain
ONNX model's is what its graph says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self, get_args

import ml_dtypes
import numpy as np

from fairlead.contract import Contract, DType
from fairlead_server.errors import InvalidRequest

ANY = -1
"""A dimension that each request may choose."""
BYTES = "BYTES"
"""Datatype of text and other bytes."""

NUMPY_OF: MappingProxyType[str, np.dtype[Any]] = MappingProxyType(
    {
        "BOOL": np.dtype(np.bool_),
        "UINT8": np.dtype("<u1"),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
        "INT8": np.dtype("<i1"),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "FP16": np.dtype("<f2"),
        "BF16": np.dtype(ml_dtypes.bfloat16),
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
        BYTES: np.dtype(object),
    }
)
"""Element type by datatype."""

DATATYPE_OF: MappingProxyType[DType, str] = MappingProxyType(
    {"float32": "FP32", "float64": "FP64", "int64": "INT64", "int32": "INT32", "bool": "BOOL", "string": BYTES}
)
"""Datatype by the contract's name of the type."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: its name, what its elements are, and its dimensions."""

    name: str
    datatype: str
    """A key of ``NUMPY_OF``."""
    shape: tuple[int, ...]
    """Dimensions; ``ANY`` where a request may choose."""
    column: bool = False
    """Whether it is one value per row, given as [n] or [n, 1]; so are all tensors of a contract model."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of its arrays."""
        return NUMPY_OF[self.datatype]

    def takes(self, shape: Sequence[int]) -> bool:
        """Return whether an array of ``shape`` fits."""
        if self.column and len(shape) == 1:
            return True
        return len(shape) == len(self.shape) and all(
            wanted in (ANY, given) for wanted, given in zip(self.shape, shape, strict=True)
        )

    def require_shape(self, shape: Sequence[int]) -> None:
        """Check that an array of ``shape`` fits.

        Raises:
            InvalidRequest: It does not; the message names the tensor, its shape and the wanted one.
        """
        if not self.takes(shape):
            free = " (-1 is any)" if ANY in self.shape else ""
            raise InvalidRequest(
                f"{self.name}: has shape {list(shape)}; the model takes {list(self.shape)}{free}", field=self.name
            )


@dataclass(frozen=True, slots=True)
class Signature:
    """What a graph takes and gives."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    batched: bool
    """Whether the first dimension of all inputs and outputs is free and shared, and rows do not see each other: then
    rows of several requests may share one run."""

    @classmethod
    def of_contract(cls, contract: Contract) -> Self:
        """Return what a contract's graph takes and gives: columns, whose rows do not see each other."""
        return cls(
            inputs={name: column(name, dtype, (ANY, 1)) for name, dtype in contract.tensor_inputs.items()},
            outputs={output.name: column(output.name, output.dtype, (ANY,)) for output in contract.outputs},
            batched=True,
        )


def column(name: str, dtype: DType, shape: tuple[int, ...]) -> TensorSpec:
    """Return the tensor of one value per row that a contract means."""
    return TensorSpec(name, DATATYPE_OF[dtype], shape, column=True)


if set(get_args(DType)) != set(DATATYPE_OF):  # pragma: no cover -- a new contract type must get a datatype
    raise AssertionError("a type of the contract has no datatype")
