"""What a served model says about itself, for V2 metadata and the repository index.

A plain model's tensors are those of its graph, -1 standing for a dimension that a request may choose.

Of a contract model both ways to ask are listed as inputs: the keys first (``role`` entity or request), then the
graph's own inputs (``role`` feature). A request brings all of the one kind or all of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.contract import Contract
from fairlead_server import __version__
from fairlead_server.predict.signature import DATATYPE_OF, TensorSpec
from fairlead_server.protocol.schema import Schema

SERVER_NAME = "fairlead"
SERVER_EXTENSIONS = ("binary_tensor_data", "model_repository", "statistics")
PLATFORM = "onnxruntime_onnx"
READY, UNAVAILABLE = "READY", "UNAVAILABLE"


def of_server() -> dict[str, Any]:
    """Return V2 server metadata."""
    return {"name": SERVER_NAME, "version": __version__, "extensions": list(SERVER_EXTENSIONS)}


def of_model(schema: Schema, contract: Contract | None, parameters: dict[str, str | bool | int]) -> dict[str, Any]:
    """Return V2 model metadata.

    Args:
        schema: What the model takes and gives.
        contract: The model's; None for one that has none.
        parameters: What the server tells about itself; see ``fairlead.serving``.
    """
    return {
        "name": schema.model,
        "versions": [schema.version],
        "platform": PLATFORM,
        "inputs": _plain(schema.inputs) if contract is None else _inputs(contract),
        "outputs": _plain(schema.outputs) if contract is None else _outputs(contract),
        "parameters": parameters,
    }


def index(name: str, version: str, *, ready: bool, reason: str) -> list[dict[str, str]]:
    """Return the repository index of the one model."""
    entry = {"name": name, "version": version, "state": READY if ready else UNAVAILABLE}
    return [entry if ready else entry | {"reason": reason}]


def _inputs(contract: Contract) -> list[dict[str, Any]]:
    entities = [_tensor(e.join_key, DATATYPE_OF[e.dtype], role="entity") for e in contract.entities]
    asked = [_tensor(r.name, DATATYPE_OF[r.dtype], role="request") for r in contract.request_features]
    features = [_tensor(f.input, DATATYPE_OF[f.dtype], role="feature") for f in contract.features]
    return entities + asked + features


def _outputs(contract: Contract) -> list[dict[str, Any]]:
    return [_tensor(output.name, DATATYPE_OF[output.dtype], meaning=output.meaning) for output in contract.outputs]


def _plain(specs: Mapping[str, TensorSpec]) -> list[dict[str, Any]]:
    return [{"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in specs.values()]


def _tensor(name: str, datatype: str, **parameters: str) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [-1], "parameters": parameters}
