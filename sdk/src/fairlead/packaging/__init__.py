"""One ONNX file out of a scikit-learn estimator and a Feast feature service.

:func:`package` refuses what is known to convert wrongly, converts, checks that the file answers what the estimator
answers, and writes the contract into the file's metadata. Needs the extras ``[package]`` and ``[feast]``.
"""

from __future__ import annotations

from fairlead.packaging.assemble import PackagedModel, package
from fairlead.packaging.errors import (
    ConversionFailed,
    EstimatorRefused,
    FeaturesDiffer,
    PackagingError,
    ParityBroken,
    RowsRefused,
)
from fairlead.packaging.outputs import Answer, Label, Probability, Value
from fairlead.packaging.parity import Parity

__all__ = [
    "Answer",
    "ConversionFailed",
    "EstimatorRefused",
    "FeaturesDiffer",
    "Label",
    "PackagedModel",
    "PackagingError",
    "Parity",
    "ParityBroken",
    "Probability",
    "RowsRefused",
    "Value",
    "package",
]
