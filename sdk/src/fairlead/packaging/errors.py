"""Why a model is not packaged.

::

    PackagingError
    ├── EstimatorRefused      unfitted, nameless columns, or a construct that converts wrongly
    ├── FeaturesDiffer        the estimator's columns are not the feature service's features
    ├── RowsRefused           training or held-out rows that cannot be used
    ├── ConversionFailed      the converter cannot translate a step
    └── ParityBroken          the ONNX file answers differently from the estimator
"""

from __future__ import annotations


class PackagingError(ValueError):
    """A model that must not be served. Nothing was written; the message names the cause and the fix."""


class EstimatorRefused(PackagingError):
    """The estimator is unfitted, was trained without column names, or has a step known to convert wrongly."""


class FeaturesDiffer(PackagingError):
    """The estimator's columns and the feature service's features differ, or have types a graph cannot take."""


class RowsRefused(PackagingError):
    """The training rows, the held-out rows or their labels are incomplete."""


class ConversionFailed(PackagingError):
    """The converter cannot translate a step; the message names it."""


class ParityBroken(PackagingError):
    """The ONNX file and the estimator disagree; the message shows the worst row."""
