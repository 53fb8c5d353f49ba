"""The model that everybody serves, and the rows it is asked about: gradient boosting on ten float32 features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

FEATURES = 10
LARGEST_BATCH = 64
NAME = "gb"
_EXAMPLES = 20_000


@dataclass(frozen=True, slots=True)
class Asked:
    """Rows, and what ONNX Runtime answers for them when it is run directly."""

    rows: NDArray[np.float32]
    """[n, FEATURES]."""
    labels: NDArray[np.int64]
    """[n]."""
    probabilities: NDArray[np.float32]
    """[n, 2]."""

    def part(self, start: int, count: int) -> Asked:
        """Return ``count`` rows from ``start`` on, with their answers."""
        rows = slice(start, start + count)
        return Asked(self.rows[rows], self.labels[rows], self.probabilities[rows])


def make(path: Path) -> None:
    """Train the model and write it to ``path``: input ``input``, outputs ``label`` and ``probabilities``."""
    from skl2onnx import to_onnx  # noqa: PLC0415 -- seconds to import, and mostly the file is there
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415
    from sklearn.datasets import make_classification  # noqa: PLC0415
    from sklearn.ensemble import GradientBoostingClassifier  # noqa: PLC0415

    features, classes = make_classification(_EXAMPLES, FEATURES, n_informative=7, random_state=0)
    model: Any = GradientBoostingClassifier(n_estimators=100, max_depth=3, random_state=0).fit(features, classes)
    kinds = [("input", FloatTensorType([None, FEATURES]))]
    graph: Any = to_onnx(model, initial_types=kinds, options={id(model): {"zipmap": False}}, target_opset=17)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(graph.SerializeToString())


def asked(path: Path) -> Asked:
    """Return the rows that are asked about, with the answers of the model at ``path``."""
    rows = np.random.default_rng(7).normal(0, 1.5, (LARGEST_BATCH, FEATURES)).astype(np.float32)
    labels, probabilities = ort.InferenceSession(str(path)).run(["label", "probabilities"], {"input": rows})
    return Asked(rows, labels, probabilities)
