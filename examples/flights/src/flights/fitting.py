"""Fit one model, score it on the held-out month, and package it if it beats what is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from fairlead import Contract, ContractError
from fairlead.contract import Evaluation, Scalar, Training
from fairlead.features.service import ServiceDescription, describe
from fairlead.packaging import PackagedModel, package
from fairlead.packaging.evaluation import evaluate
from flights.dataset import training_set
from flights.files import data_digest
from flights.manifest import Deployed, deployed, set_digest
from flights.models import RECIPES, Recipe
from flights.runs import SERVICES, Parity, RunRecord, package_versions

if TYPE_CHECKING:
    from feast import FeatureStore

MODEL_NAME = "arrival-delay"
"""What clients call, whichever variant answers."""
OUTPUT = "probability_late"

TRAIN_START = datetime(2013, 1, 1, tzinfo=UTC)
TRAIN_END = datetime(2013, 11, 1, tzinfo=UTC)
"""End of training and start of evaluation."""
EVALUATION_END = datetime(2013, 12, 1, tzinfo=UTC)

LEAST_GAIN = 1e-5
"""A candidate's Brier score must be this much lower; less is rounding."""

SLICES = ("origin", "carrier")
_VERSION_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Months:
    """The rows of one model: January to October, and November."""

    train: pd.DataFrame
    held_out: pd.DataFrame


@dataclass(frozen=True, slots=True)
class Rival:
    """What a candidate has to beat on the held-out month."""

    digest: str | None
    """Of the served model's file; None for the base rate of the training months."""
    brier: float


def read_months(name: str, store: FeatureStore) -> Months:
    """Return the point-in-time rows of model ``name``."""
    service = SERVICES[name]
    return Months(
        training_set(service, TRAIN_START, TRAIN_END, store=store),
        training_set(service, TRAIN_END, EVALUATION_END, store=store),
    )


def train(
    name: str,
    run: str,
    months: Months,
    *,
    store: FeatureStore,
    manifest: Path,
    on_step: Callable[[str], None] = lambda _: None,
) -> RunRecord:
    """Train model ``name``; package it and write its digest into the manifest if it beats what is served.

    Args:
        name: One of ``SERVICES``.
        run: Digest of the run; its first digits become the model's version.
        months: Rows to train on and to be judged by.
        store: The flights feature store.
        manifest: The ModelDeployment's file, which says what is served, and where the model goes.
        on_step: Told what is done next.

    Raises:
        ManifestError: The manifest lacks the model.
        PackagingError: The model cannot be packaged; what is served stays.
    """
    served = deployed(manifest, name)
    service = describe(store, SERVICES[name])
    columns = [feature.input for feature in service.features]
    on_step(f"fit {len(months.train):,} rows")
    estimator = fit(RECIPES[name], months.train, columns)
    on_step(f"score {len(months.held_out):,} held-out rows")
    slices = score(estimator, months.held_out, columns)
    rival = rival_of(served, service, months)
    packaged = None
    if slices[0].metrics["brier"] < rival.brier - LEAST_GAIN:
        on_step("convert to ONNX, check parity, write")
        packaged = _package(estimator, run, store=store, service=service, months=months, path=served.path)
        set_digest(manifest, name, packaged.digest)
    return RunRecord(
        run=run,
        model=name,
        feature_service=service.name,
        fingerprint=service.fingerprint,
        data_digest=data_digest(),
        parameters=dict(RECIPES[name].parameters),
        trained=(TRAIN_START.isoformat(), TRAIN_END.isoformat()),
        evaluated=(TRAIN_END.isoformat(), EVALUATION_END.isoformat()),
        rows=len(months.train),
        metrics=slices[0].metrics,
        slices=slices[1:],
        rival="served model" if rival.digest else "base rate",
        rival_brier=rival.brier,
        rival_digest=rival.digest,
        packaged=packaged is not None,
        onnx_digest=packaged.digest if packaged else None,
        parity=_parity(packaged) if packaged else None,
        serving_digest=packaged.digest if packaged else rival.digest,
        packages=package_versions(),
    )


def fit(recipe: Recipe, rows: pd.DataFrame, columns: list[str]) -> Any:
    """Fit a recipe's estimator on ``rows``; on one thread, so that sums are added in one order on every machine."""
    estimator = recipe.build(columns, recipe.parameters)
    with threadpool_limits(limits=1):
        return estimator.fit(rows[columns], rows["late"].to_numpy())


def score(estimator: Any, rows: pd.DataFrame, columns: list[str]) -> tuple[Evaluation, ...]:
    """Score a fitted estimator on labelled rows, overall (first) and by slice."""
    with threadpool_limits(limits=1):
        predicted = estimator.predict_proba(rows[columns])[:, 1]
    return evaluate(predicted, rows["late"].to_numpy(), "probability", rows, SLICES)


def rival_of(served: Deployed, service: ServiceDescription, months: Months) -> Rival:
    """Score what is served on the held-out month; the base rate stands in if nothing servable is.

    A served model is one whose file has the manifest's digest and whose contract fits the features as registered.
    """
    happened = months.held_out["late"].to_numpy(dtype=np.float64)
    probability = _served_probability(served, service, months.held_out)
    if probability is None:
        return Rival(None, float(np.mean((months.train["late"].mean() - happened) ** 2)))
    return Rival(served.digest, float(np.mean((probability.astype(np.float64) - happened) ** 2)))


def _served_probability(
    served: Deployed, service: ServiceDescription, rows: pd.DataFrame
) -> NDArray[np.float32] | None:
    if not served.intact:
        return None
    session = onnxruntime.InferenceSession(served.path, providers=["CPUExecutionProvider"])
    try:
        contract = Contract.from_metadata(session.get_modelmeta().custom_metadata_map, str(served.path))
    except ContractError:
        return None
    if contract.fingerprint != service.fingerprint:
        return None
    inputs = {name: rows[name].to_numpy(dtype=dtype).reshape(-1, 1) for name, dtype in contract.tensor_inputs.items()}
    probability: NDArray[np.float32] = session.run([OUTPUT], inputs)[0]
    return probability


def _package(
    estimator: Any, run: str, *, store: FeatureStore, service: ServiceDescription, months: Months, path: Path
) -> PackagedModel:
    return package(
        estimator,
        store=store,
        feature_service=service.name,
        name=MODEL_NAME,
        version=run.removeprefix("sha256:")[:_VERSION_DIGITS],
        outputs=OUTPUT,
        path=path,
        trained_on=months.train,
        training=Training(
            start=TRAIN_START.isoformat(),
            end=TRAIN_END.isoformat(),
            rows=len(months.train),
            data_digest=data_digest(),
        ),
        holdout=months.held_out,
        labels=months.held_out["late"].to_numpy(),
        slices=SLICES,
        example=_example(months.held_out, service),
    )


def _example(rows: pd.DataFrame, service: ServiceDescription) -> Mapping[str, Scalar]:
    """Return the first held-out flight that has all keys, as a request."""
    keys = [entity.join_key for entity in service.entities]
    flight = rows.dropna(subset=keys).iloc[0]
    asked = {request.name: flight[f"departure__{request.name}"].item() for request in service.request_features}
    return {key: str(flight[key]) for key in keys} | asked


def _parity(packaged: PackagedModel) -> Parity:
    parity = packaged.parity
    return Parity(held_out=parity.held_out, generated=parity.generated, largest_error=parity.largest_error)
