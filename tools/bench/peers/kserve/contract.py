"""The peer with a contract model: the KServe SDK, glued by hand; ``contract.py MODEL REPO HTTP_PORT [quiet]``.

Answers V2 requests that bring all tensors, and V1 requests that bring entity keys, with features from
``FeatureStore.get_online_features``: what people write today, without the extra hop of a transformer.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import numpy as np
import onnxruntime as ort
from feast import FeatureStore
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve import logging as kserve_logging
from kserve.utils.utils import generate_uuid

from fairlead.contract import Contract

NAME = "arrival-delay"
OUTPUT = "probability_late"


class ContractModel(Model):
    """One ONNX file whose inputs are features."""

    def __init__(self, path: str, repo: str) -> None:
        super().__init__(NAME)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(path, options)
        self.contract = Contract.from_metadata(self.session.get_modelmeta().custom_metadata_map, path)
        self.store = FeatureStore(repo_path=repo)
        self.service = self.store.get_feature_service(self.contract.feature_service)
        self.ready = True

    def predict(self, payload: InferRequest | dict[str, Any], *_: Any) -> InferResponse | dict[str, Any]:
        """Bind by name and run."""
        return self._full(payload) if isinstance(payload, InferRequest) else self._hydrated(payload["instances"])

    def _full(self, payload: InferRequest) -> InferResponse:
        types = self.contract.tensor_inputs
        feed = {i.name: i.as_numpy().reshape(-1, 1).astype(types[i.name]) for i in payload.inputs}
        (probability,) = self.session.run([OUTPUT], feed)
        output = InferOutput(OUTPUT, [len(probability)], "FP32")
        output.set_data_from_numpy(np.ravel(probability), binary_data=False)
        return InferResponse(payload.id or generate_uuid(), NAME, [output])

    def _hydrated(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        features = self.store.get_online_features(self.service, rows, full_feature_names=True).to_dict()
        # Under full names Feast 0.67 leaves out what on-demand views compute; glue fills it in.
        for name in ("hour", "weekday", "distance"):
            features[f"departure__{name}"] = [row[name] for row in rows]
        feed = {
            name: np.array(features[name], dtype=dtype).reshape(-1, 1)
            for name, dtype in self.contract.tensor_inputs.items()
        }
        (probability,) = self.session.run([OUTPUT], feed)
        return {"predictions": [{OUTPUT: float(p)} for p in np.ravel(probability)]}


def main(path: str, repo: str, port: str, *, quiet: bool) -> None:
    """Serve until terminated."""
    del sys.argv[1:]  # kserve reads the command line
    model = ContractModel(path, repo)
    if quiet:
        kserve_logging.configure_logging()
        for name in ("kserve", "kserve.trace", "uvicorn.access"):
            logging.getLogger(name).setLevel(logging.WARNING)
    ModelServer(http_port=int(port), enable_grpc=False, enable_latency_logging=not quiet).start([model])


if __name__ == "__main__":
    main(*sys.argv[1:4], quiet="quiet" in sys.argv[4:])
