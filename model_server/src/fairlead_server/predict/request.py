"""What the protocols hand to the predictor and get back; the same for V1, V2 and gRPC."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fairlead.policy import FeatureState


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """One decoded request, not yet bound to the contract."""

    inputs: Mapping[str, NDArray[np.generic]]
    """Arrays by name, text as ``object`` arrays of ``str``. Graph inputs or key inputs of a contract model: shape
    [rows] or [rows, 1]. Inputs of a plain model: of their real shapes and the signature's types."""
    rows: int
    """The first dimension, if the model is batched; else 1."""
    report_states: bool = False
    """Whether the answer must list the feature states."""
    deadline_s: float | None = None
    """When the client gives up, by the event loop's time; None if it does not say."""
    gone: Callable[[], bool] | None = None
    """Tells whether the client has left, so that nothing long is run for nobody; None if nobody can tell."""


@dataclass(frozen=True, slots=True)
class PredictResponse:
    """The answer to one request."""

    outputs: Mapping[str, NDArray[np.generic]]
    """Arrays by output name; of a contract model shape [rows]."""
    states: Mapping[str, Sequence[FeatureState]] | None
    """Per stored feature (``view__name``) one state per row; None for a full request or when not asked for."""
    degraded: bool
    """Whether any feature was replaced because the store failed."""
    ages_s: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    """Per stored view one age per row, seconds; None where no row was read. Told where the states are."""
    features: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    """What the model was fed: arrays by input name; of a contract model ``view__name``, shape [rows]."""
