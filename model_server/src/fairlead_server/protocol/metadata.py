"""What a served model says about itself, for V2 metadata and the repository index.

Both ways to ask are listed as inputs: the keys first (``role`` entity or request), then the graph's own inputs
(``role`` feature). A request brings all of the one kind or all of the other.
"""

from __future__ import annotations

from typing import Any

from fairlead.contract import Contract
from fairlead_server import __version__
from fairlead_server.predict.signature import DATATYPE_OF

SERVER_NAME = "fairlead"
SERVER_EXTENSIONS = ("binary_tensor_data", "model_repository")
PLATFORM = "onnxruntime_onnx"
READY, UNAVAILABLE = "READY", "UNAVAILABLE"


def of_server() -> dict[str, Any]:
    """Return V2 server metadata."""
    return {"name": SERVER_NAME, "version": __version__, "extensions": list(SERVER_EXTENSIONS)}


def of_model(contract: Contract, name: str, parameters: dict[str, str | bool | int]) -> dict[str, Any]:
    """Return V2 model metadata.

    Args:
        contract: The model's.
        name: Name that the model is served under.
        parameters: What the server tells about itself; see ``fairlead.serving``.
    """
    return {
        "name": name,
        "versions": [contract.version],
        "platform": PLATFORM,
        "inputs": _inputs(contract),
        "outputs": [_tensor(o.name, DATATYPE_OF[o.dtype], meaning=o.meaning) for o in contract.outputs],
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


def _tensor(name: str, datatype: str, **parameters: str) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [-1], "parameters": parameters}
