"""Signatures for tests of the codecs."""

from __future__ import annotations

from fairlead.contract import DType
from fairlead_server.predict.signature import ANY, TensorSpec, column


def columns(**dtypes: DType) -> dict[str, TensorSpec]:
    """Return a contract's tensors: one value per row."""
    return {name: column(name, dtype, (ANY,)) for name, dtype in dtypes.items()}
