"""Run records: what each training was given, how good its model was, and what became of it."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

import fairlead
from fairlead.contract import Digest, Evaluation, Scalar
from flights import stamps
from flights.errors import FlightsError
from flights.features import built_digest
from flights.paths import FEATURE_REPO

SERVICES = {"logistic": "late_logistic", "boosted": "late_boosted"}
"""Feature service by model; the models are variants of one deployment."""

_DIGITS = 16
_HERE = Path(__file__).parent
_PACKAGES = ("feast", "numpy", "onnx", "onnxruntime", "pandas", "scikit-learn", "skl2onnx")


class FeaturesNotBuilt(FlightsError):
    """There is nothing to train on yet; the message says how to make it."""


class Parity(BaseModel):
    """How closely the packaged file and the estimator agreed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    held_out: int
    generated: int
    largest_error: float


class RunRecord(BaseModel):
    """One training run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Digest
    """Over features, code and package versions: equal digests mean equal runs."""
    model: str
    feature_service: str
    fingerprint: Digest
    """Of the feature service."""
    data_digest: Digest
    """Of the raw data."""
    parameters: dict[str, Scalar | None]
    trained: tuple[str, str]
    """Training window, ISO 8601, end excluded."""
    evaluated: tuple[str, str]
    """Evaluation window, ISO 8601, end excluded."""
    rows: int
    """Rows trained on."""
    metrics: dict[str, float]
    """Of the candidate on the evaluation window."""
    slices: tuple[Evaluation, ...]
    """The same by slice."""
    rival: Literal["base rate", "served model"]
    """What the candidate had to beat."""
    rival_brier: float
    rival_digest: Digest | None
    """Of the served model's file; None for the base rate."""
    packaged: bool
    onnx_digest: Digest | None
    """Of the candidate's file; None if it was not packaged."""
    parity: Parity | None
    serving_digest: Digest | None
    """Of the model that the manifest names after this run."""
    packages: dict[str, str]
    """Versions of what training rests on."""
    seconds: float = 0.0
    """How long the run took."""


def run_digest(model: str) -> str:
    """Return the digest of everything that decides what training ``model`` gives.

    Raises:
        FeaturesNotBuilt: The features are missing or out of date.
    """
    features = built_digest("store", FEATURE_REPO)
    if features is None:
        raise FeaturesNotBuilt(f"{FEATURE_REPO}: the features are not built or out of date; run `make features`")
    sdk = Path(fairlead.__file__).parent
    code = [_HERE / name for name in ("dataset.py", "fitting.py", "models.py", "runs.py")]
    code += [sdk / "contract.py", sdk / "policy.py", sdk / "features" / "service.py"]
    code += sorted((sdk / "packaging").glob("*.py"))
    return stamps.digest_of([model, features, *stamps.file_digests(code), *stamps.versions(*_PACKAGES)])


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that training rests on."""
    return {name: metadata.version(name) for name in _PACKAGES}


def record_path(folder: Path, model: str, run: str) -> Path:
    """Return where the record of a run is kept."""
    return folder / f"{model}-{run.removeprefix('sha256:')[:_DIGITS]}.json"


def read_record(path: Path) -> RunRecord | None:
    """Return a run's record; None if there is none or an older version wrote it."""
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def write_record(path: Path, record: RunRecord) -> None:
    """Write a run's record in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(record.model_dump_json(indent=2) + "\n")
    fresh.replace(path)
