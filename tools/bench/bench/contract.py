"""The flights contract model's requests: all tensors, or entity keys alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from bench.questions import TOLERANCE, Answer, Body, WrongAnswer
from fairlead.contract import Contract

_JSON = {"content-type": "application/json"}
_KEYS = {"tailnum": "N14228", "origin": "EWR", "dest": "IAH", "carrier": "UA"}
_SCHEDULE = {"hour": 5, "weekday": 1, "distance": 1400.0}
_VALUES: dict[str, tuple[str, float]] = {"float32": ("FP32", 12.5), "float64": ("FP64", 700.0), "int64": ("INT64", 5)}
_OUTPUT = "probability_late"


def missing(model: Path, store: Path) -> str | None:
    """Say what has to be made first; None if all is there."""
    return None if model.exists() and (store / "data/online_store.db").exists() else "make train has not been run"


def full(model: Path) -> tuple[Body, float]:
    """Return a V2 request that brings every tensor, and what ONNX Runtime answers to it."""
    session = ort.InferenceSession(str(model))
    contract = Contract.from_metadata(session.get_modelmeta().custom_metadata_map, model.name)
    inputs = [_tensor(name, *_VALUES[dtype]) for name, dtype in contract.tensor_inputs.items()]
    feed: dict[str, Any] = {
        name: np.array([[_VALUES[dtype][1]]], dtype) for name, dtype in contract.tensor_inputs.items()
    }
    (probability,) = session.run([_OUTPUT], feed)
    return Body(json.dumps({"inputs": inputs}).encode(), _JSON), float(np.ravel(probability)[0])


def hydrated() -> Body:
    """Return a V1 request that brings keys and what the caller knows."""
    return Body(json.dumps({"instances": [_KEYS | _SCHEDULE]}).encode(), _JSON)


def probability(answer: Answer) -> float:
    """Return the one probability of an answer.

    Raises:
        WrongAnswer: It has none.
    """
    try:
        content = json.loads(answer.content)
        found = content["outputs"][0]["data"][0] if "outputs" in content else content["predictions"][0][_OUTPUT]
        return float(found)
    except (LookupError, TypeError, ValueError):
        raise WrongAnswer(f"status {answer.status}: {answer.content[:160]!r}") from None


def check(answer: Answer, wanted: float) -> None:
    """Check an answer's probability.

    Raises:
        WrongAnswer: It is another.
    """
    if abs(probability(answer) - wanted) > TOLERANCE:
        raise WrongAnswer(f"probability {probability(answer)} instead of {wanted}")


def _tensor(name: str, datatype: str, value: float) -> dict[str, Any]:
    return {"name": name, "shape": [1, 1], "datatype": datatype, "data": [value]}
