"""What a predictor is started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fairlead.policy import Hydration
from fairlead_server.prediction_log.settings import LogSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorSettings:
    """One model, its feature store, and how it is hydrated."""

    model: Path
    """The ONNX file."""
    feature_store: Path | None = None
    """Folder of ``feature_store.yaml``, or such a file; None serves a model without one."""
    model_name: str | None = None
    """What clients call it; None for the contract's name."""
    model_version: str | None = None
    """What clients call this version; None for the contract's, or 1."""
    may_be_plain: bool = False
    """Whether a model may come without a contract although there is a feature store: not every model needs it."""
    model_digest: str | None = None
    """``sha256:…`` that the file must have; None takes any."""
    variant: str = ""
    revision: str = ""
    hydration: Hydration = field(default_factory=Hydration)
    startup_deadline_s: float = 10.0
    """How long to wait for registry and online store before going on without."""
    registry_refresh_s: float = 60.0
    """Seconds between reads of the registry, which compare it to the contract; 0 for none after the start."""
    registry_deadline_s: float = 10.0
    """After so long a read of the registry counts as failed."""
    last_good_rows: int = 100_000
    """Rows kept for the action LastGood, one per entity and view."""
    rows_limit: int = 10_000
    """Rows of one request beyond which it is refused."""
    prediction_log: LogSettings | None = None
    """How hydrated requests are logged; None for not at all."""
