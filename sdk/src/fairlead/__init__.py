"""Fairlead's shared language: assignment law, model contract, ONNX packaging, client and command line.

Importing this package is light (pydantic, numpy and xxhash). What needs more is imported where it is used:
``fairlead.package`` needs the extra ``[package]``, ``fairlead.features`` needs ``[feast]``, the command line ``[cli]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fairlead.assignment import BUCKETS, Layout, LayoutError, Slice, assign, bucket_of
from fairlead.contract import Contract, ContractError, Entity, Feature, Output, RequestFeature
from fairlead.policy import Action, FeatureState, Policy

if TYPE_CHECKING:
    from fairlead.packaging import PackagingError, package

__all__ = [
    "BUCKETS",
    "Action",
    "Contract",
    "ContractError",
    "Entity",
    "Feature",
    "FeatureState",
    "Layout",
    "LayoutError",
    "Output",
    "PackagingError",
    "Policy",
    "RequestFeature",
    "Slice",
    "assign",
    "bucket_of",
    "package",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in {"PackagingError", "package"}:
        from fairlead import packaging  # noqa: PLC0415 -- onnx and scikit-learn load only when packaging is asked for

        return getattr(packaging, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
