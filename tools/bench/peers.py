"""The peers: the same model behind the KServe SDK, as its documentation shows it; ``peers.py KIND MODEL REPO PORT``.

``full`` answers V2 requests that bring all tensors. ``glue`` answers V1 requests that bring entity keys, with features
from ``FeatureStore.get_online_features``: what people write today, without the extra hop of a transformer.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import numpy as np
import onnxruntime as ort
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid

from fairlead.contract import Contract

NAME = "arrival-delay"


class Full(Model):  # type: ignore[misc]
    """All tensors come with the request."""

    def __init__(self, path: str) -> None:
        super().__init__(NAME)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(path, options)
        self.contract = Contract.from_metadata(self.session.get_modelmeta().custom_metadata_map, path)
        self.ready = True

    def predict(self, payload: InferRequest, *_: Any) -> InferResponse:
        """Bind by name and run."""
        types = self.contract.tensor_inputs
        feed = {i.name: i.as_numpy().reshape(-1, 1).astype(types[i.name]) for i in payload.inputs}
        (probability,) = self.session.run(["probability_late"], feed)
        output = InferOutput("probability_late", [len(probability)], "FP32")
        output.set_data_from_numpy(np.ravel(probability), binary_data=False)
        return InferResponse(payload.id or generate_uuid(), NAME, [output])


class Glue(Full):
    """Entity keys come with the request; features from Feast."""

    def __init__(self, path: str, repo: str) -> None:
        from feast import FeatureStore  # noqa: PLC0415 -- the other peer does without

        super().__init__(path)
        self.store = FeatureStore(repo_path=repo)
        self.service = self.store.get_feature_service(self.contract.feature_service)

    def predict(self, payload: dict[str, Any], *_: Any) -> dict[str, Any]:
        """Look up, bind by name and run."""
        rows = payload["instances"]
        features = self.store.get_online_features(self.service, rows, full_feature_names=True).to_dict()
        # Under full names Feast 0.67 leaves out what on-demand views compute; glue fills it in.
        for name in ("hour", "weekday", "distance"):
            features[f"departure__{name}"] = [row[name] for row in rows]
        feed = {
            name: np.array(features[name], dtype=dtype).reshape(-1, 1)
            for name, dtype in self.contract.tensor_inputs.items()
        }
        (probability,) = self.session.run(["probability_late"], feed)
        return {"predictions": [{"probability_late": float(p)} for p in np.ravel(probability)]}


def main(kind: str, path: str, repo: str, port: str) -> None:
    """Serve until terminated."""
    logging.disable(logging.INFO)
    model = Full(path) if kind == "full" else Glue(path, repo)
    ModelServer(http_port=int(port), enable_grpc=False, access_log_format=None, enable_latency_logging=False).start(
        [model]
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
