"""A predictor over a small feature repository, on a clock that the test moves, and requests for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from fairlead.clock import ReplayClock, ReplayClockWriter, to_us
from fairlead.contract import Contract
from fairlead.policy import Action, FeatureState, Hydration
from fairlead_server.hydrate.hydrator import Hydrator
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.connection import FeatureConnection
from fairlead_server.predict.load import load
from fairlead_server.predict.predictor import Predictor
from fairlead_server.predict.request import PredictRequest, PredictResponse
from fairlead_server.predict.settings import PredictorSettings
from support.models import contract_of, write_model
from support.store import FeatureRepo

NOON = datetime(2013, 11, 1, 12, tzinfo=UTC)
"""What the clock says at first."""

HOUR = timedelta(hours=1)

REJECT_ALL = dict.fromkeys(("null", "not_found", "never_written", "stale", "store_error"), Action.REJECT)


@dataclass(frozen=True, slots=True)
class Rig:
    """A predictor and what a test needs around it."""

    predictor: Predictor
    clock: ReplayClockWriter
    metrics: CollectorRegistry

    @property
    def connection(self) -> FeatureConnection:
        """The way to the feature store."""
        assert self.predictor.connection is not None
        return self.predictor.connection

    @property
    def hydrator(self) -> Hydrator:
        """The hydrator in force."""
        return self.connection.hydrator

    def set_time(self, moment: datetime) -> None:
        self.clock.set_us(to_us(moment))

    async def ask(self, *rows: Mapping[str, Any]) -> PredictResponse:
        """Ask for a hydrated prediction, states included; see :func:`keys_of` for what a row may say."""
        return await self.predictor.predict(hydrated(*rows), self.predictor.metrics.timer())

    async def state(self, feature: str, **row: Any) -> FeatureState:
        """Return the state of one feature for one row."""
        answer = await self.ask(row)
        assert answer.states is not None
        return answer.states[feature][0]

    def count(self, metric: str, **labels: str) -> float:
        """Return a sample's value, 0 if it was never counted; model and variant are filled in."""
        return self.metrics.get_sample_value(metric, {"model": "arrival-delay", "variant": "logistic"} | labels) or 0.0


def keys_of(**row: Any) -> dict[str, Any]:
    """Return one row of keys and request features: a flight EWR-IAH of N14228 at five, unless the row says else."""
    usual = {"origin": "EWR", "dest": "IAH", "tailnum": "N14228", "hour": 5, "weekday": 4, "distance": 1400.0}
    return usual | row


def hydrated(*rows: Mapping[str, Any]) -> PredictRequest:
    """Return a hydrated request of these rows that asks for the states."""
    whole = [keys_of(**row) for row in rows]
    inputs = {
        name: np.array([row[name] for row in whole], np.object_ if isinstance(whole[0][name], str) else None)
        for name in whole[0]
    }
    return PredictRequest(inputs, len(rows), report_states=True)


def seen(answer: PredictResponse, feature: str, row: int = 0) -> Any:
    """Return what the model was given for a feature."""
    return answer.outputs[f"seen_{feature}"][row].item() if feature != "plane__maker" else _text(answer, feature, row)


def contract_for(repo: FeatureRepo, **of_feature: Any) -> Contract:
    """Return the repository's contract with an echo; ``of_feature`` as for ``contract_of``."""
    return contract_of(repo.describe(), **of_feature)


@asynccontextmanager
async def running(
    repo_path: Path,
    contract: Contract,
    folder: Path,
    *,
    hydration: Hydration | None = None,
    **settings: Any,
) -> AsyncIterator[Rig]:
    """Load a predictor for a contract's model and close it afterwards.

    Args:
        repo_path: Folder of ``feature_store.yaml``.
        contract: Of the model, which is made.
        folder: Where model and clock go.
        hydration: Default: deadline of one second, policies of the contract.
        settings: Further fields of ``PredictorSettings``.
    """
    model = folder / "model.onnx"
    write_model(model, contract)
    clock = ReplayClockWriter(folder / "clock", to_us(NOON))
    registry = CollectorRegistry()
    wanted = PredictorSettings(
        model=model,
        feature_store=repo_path,
        variant="logistic",
        hydration=hydration or Hydration(deadline_s=1.0),
    )
    predictor = await load(
        replace(wanted, **settings), clock=ReplayClock(folder / "clock"), metrics=ServerMetrics(registry)
    )
    try:
        yield Rig(predictor, clock, registry)
    finally:
        await predictor.close()


def _text(answer: PredictResponse, feature: str, row: int) -> str:
    return str(answer.outputs[f"seen_{feature}"][row])
