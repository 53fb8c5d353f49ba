"""Small ONNX models with contracts, made node by node, so that a test knows every number the graph gives.

The graph takes each feature of the contract as an input ``view__name`` of shape [n, 1] and gives

- ``probability_late`` [n] float32: sigmoid of the weighted sum of the numeric inputs, the i-th (from 0) weighing
  ``0.1 * (i + 1)``, a missing one counting as ``MISSING`` so that swapped and lost features change the answer;
- with ``echo``, ``seen_<view>__<name>`` [n] for each input: the very value that the model was given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from fairlead.contract import METADATA_KEY, Contract, DType, Entity, Feature, Output, RequestFeature, Training, sha256
from fairlead.features.service import ServiceDescription

MISSING = -1.0
"""What the graph puts in for NaN."""

_ELEMENT_TYPES: dict[DType, int] = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
}


def contract_of(description: ServiceDescription, *, echo: bool = True, **of_feature: Mapping[str, Any]) -> Contract:
    """Return the contract that a packager would write for a feature service.

    Args:
        description: The service, as the registry has it.
        echo: Whether the model also gives back its inputs; see this module.
        of_feature: Fields of ``Feature`` (``default``, ``policy``) by input name (``view__name``).
    """
    features = tuple(
        Feature(
            view=f.view,
            name=f.name,
            dtype=f.dtype,
            on_demand=f.on_demand,
            join_keys=f.join_keys,
            ttl_s=f.ttl_s,
            **({"default": _default(f.dtype)} | dict(of_feature.get(f.input, {}))),
        )
        for f in description.features
    )
    return make_contract(
        features,
        entities=description.entities,
        request_features=description.request_features,
        project=description.project,
        feature_service=description.name,
        fingerprint=description.fingerprint,
        echo=echo,
    )


def make_contract(
    features: Sequence[Feature],
    *,
    entities: Sequence[Entity] = (),
    request_features: Sequence[RequestFeature] = (),
    project: str = "small",
    feature_service: str = "small",
    fingerprint: str = sha256(b"none"),
    model: str = "arrival-delay",
    echo: bool = True,
) -> Contract:
    """Return a contract of these features, with one probability, and each input given back if ``echo``."""
    seen = [Output(name=f"seen_{f.input}", dtype=f.dtype, meaning="value") for f in features] if echo else []
    return Contract(
        model=model,
        version="1",
        project=project,
        feature_service=feature_service,
        fingerprint=fingerprint,
        entities=tuple(entities),
        request_features=tuple(request_features),
        features=tuple(features),
        outputs=(Output(name="probability_late", dtype="float32", meaning="probability"), *seen),
        training=Training(start="2013-01-01T00:00Z", end="2013-11-01T00:00Z", rows=1, data_digest=sha256(b"rows")),
        packages={},
    )


def write_model(path: Path, contract: Contract, *, with_contract: bool = True) -> str:
    """Write the ONNX model for ``contract`` and return the file's digest, ``sha256:…``."""
    model = helper.make_model(_graph(contract), opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if with_contract:
        helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    path.write_bytes(content)
    return sha256(content)


def expected_probability(contract: Contract, inputs: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
    """Return what the model gives for full inputs (arrays of shape [n] by name), computed without ONNX."""
    numeric = [f.input for f in contract.features if f.dtype != "string"]
    columns = [np.asarray(inputs[name]).reshape(-1).astype(np.float32) for name in numeric]
    total = sum(
        np.where(np.isnan(column), np.float32(MISSING), column) * np.float32(0.1 * (i + 1))
        for i, column in enumerate(columns)
    )
    return np.asarray(1 / (1 + np.exp(-total)), np.float32)


def _default(dtype: DType) -> Any:
    """A missing value where the type has one, else something recognisable."""
    return {"float32": None, "float64": None, "int64": -7, "int32": -7, "bool": False, "string": "unknown"}[dtype]


def _graph(contract: Contract) -> onnx.GraphProto:
    inputs = [helper.make_tensor_value_info(f.input, _ELEMENT_TYPES[f.dtype], ["n", 1]) for f in contract.features]
    outputs = [helper.make_tensor_value_info(o.name, _ELEMENT_TYPES[o.dtype], ["n"]) for o in contract.outputs]
    constants = [
        helper.make_tensor("missing", TensorProto.FLOAT, [], [MISSING]),
        helper.make_tensor("flat", TensorProto.INT64, [1], [-1]),
    ]
    nodes, terms = [], []
    for i, feature in enumerate(f for f in contract.features if f.dtype != "string"):
        name = feature.input
        constants.append(helper.make_tensor(f"weight_{name}", TensorProto.FLOAT, [], [0.1 * (i + 1)]))
        nodes += [
            helper.make_node("Cast", [name], [f"float_{name}"], to=TensorProto.FLOAT),
            helper.make_node("IsNaN", [f"float_{name}"], [f"lost_{name}"]),
            helper.make_node("Where", [f"lost_{name}", "missing", f"float_{name}"], [f"whole_{name}"]),
            helper.make_node("Mul", [f"whole_{name}", f"weight_{name}"], [f"term_{name}"]),
        ]
        terms.append(f"term_{name}")
    nodes += [
        helper.make_node("Sum", terms, ["total"]),
        helper.make_node("Sigmoid", ["total"], ["probability"]),
        helper.make_node("Reshape", ["probability", "flat"], ["probability_late"]),
    ]
    nodes += [
        helper.make_node("Reshape", [output.name.removeprefix("seen_"), "flat"], [output.name])
        for output in contract.outputs
        if output.name.startswith("seen_")
    ]
    return helper.make_graph(nodes, "small", inputs, outputs, constants)
