"""What the prediction log costs, in CPU time: ``python tools/bench/prediction_log.py``.

The log alone, in one process: 30 features of 3 views, 1 row a request, as the predictor calls it. What the event loop
pays (requests that are left out, and those that are taken), what the thread pays to encode and to write, how long it
holds the interpreter at a time, and how large rows are on the disk. Written to build/bench/prediction_log.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from fairlead.contract import Contract, Entity, Feature, Output, Training, sha256
from fairlead.policy import FeatureState, Hydration
from fairlead_server.hydrate.hydrator import Hydrated
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.request import PredictResponse
from fairlead_server.prediction_log.encode import Encoder
from fairlead_server.prediction_log.folder import LogFolder
from fairlead_server.prediction_log.log import PredictionLog
from fairlead_server.prediction_log.record import Record
from fairlead_server.prediction_log.sample import Sample
from fairlead_server.prediction_log.settings import Logged, LogSettings
from fairlead_server.prediction_log.writing import Done, Writing

RESULT = Path("build/bench/prediction_log.json")
ROUNDS = 9
REQUESTS = 6_400
AT_ONCE = 32
"""Requests that are handed to the thread at a time."""
VIEWS = ("a", "b", "c")
AT_US = 1_700_000_000_000_000


class TimedWriting(Writing):
    """Notes what the thread pays."""

    def __init__(self, encoder: Encoder, folder: LogFolder) -> None:
        super().__init__(encoder, folder, 2**30)
        self.encode_s: list[float] = []
        self.write_s: list[float] = []

    def add(self, records: list[Record]) -> Done:  # type: ignore[override]
        """Collect requests; see ``Writing``."""
        start_s = time.thread_time()
        done = super().add(records)
        self.encode_s.append(time.thread_time() - start_s)
        return done

    def roll(self) -> Done:
        """Write what was collected; see ``Writing``."""
        start_s = time.thread_time()
        done = super().roll()
        self.write_s.append(time.thread_time() - start_s)
        return done


def main() -> int:
    """Measure, print and write; return the exit code."""
    example = "Example: python tools/bench/prediction_log.py"
    argparse.ArgumentParser(description=__doc__, epilog=example).parse_args()
    rounds: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            costs = asyncio.run(_round(Path(folder)))
            size_bytes = sum(path.stat().st_size for path in Path(folder).glob("*/*.parquet"))
            rounds.append(costs | {"on the disk, bytes per row": size_bytes / REQUESTS})
    medians = {what: statistics.median(one[what] for one in rounds) for what in rounds[0]}
    table = Table("what", "median", title=f"The prediction log's cost, {ROUNDS} rounds of {REQUESTS} requests")
    for what, cost in medians.items():
        table.add_row(what, f"{cost:.3f}")
    Console().print(table)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(medians, indent=2) + "\n")
    return 0


async def _round(folder: Path) -> dict[str, float]:
    contract = _contract()
    writing = TimedWriting(
        Encoder(Logged(contract, Hydration(), "m", "1", "v", "r")), LogFolder(folder, "m", 2**30, "p")
    )
    metrics = ServerMetrics(CollectorRegistry()).of(model="m", variant="v")
    settings = LogSettings(folder=folder, sample=1, most_waiting_rows=10**9)
    log = PredictionLog(settings, Sample(1, np.random.default_rng(1).random), writing, metrics)
    left_out = Sample(1e-9, np.random.default_rng(1).random)
    requests = [_request(contract, number) for number in range(REQUESTS)]
    start_s = time.thread_time()
    for _ in requests:
        left_out.takes()
    out_us = (time.thread_time() - start_s) / REQUESTS * 1e6
    taken_s = 0.0
    for number, (keys, hydrated, response) in enumerate(requests):
        start_s = time.thread_time()
        if log.takes():
            log.recording(keys, 1, hydrated, _ignore)(response)
        taken_s += time.thread_time() - start_s
        if number % AT_ONCE == 0:  # the thread's turn
            await asyncio.sleep(0)
    await log.close()
    return {
        "left out: event loop, us per request": out_us,
        "taken: event loop, us per request": taken_s / REQUESTS * 1e6,
        "taken: encoding in the thread, us per row": sum(writing.encode_s) / REQUESTS * 1e6,
        "taken: writing in the thread, us per row": sum(writing.write_s) / REQUESTS * 1e6,
        f"encoding {AT_ONCE} requests, us at a time": statistics.median(writing.encode_s) * 1e6,
    }


def _contract() -> Contract:
    features = [
        Feature(view=view, name=f"f{n}", dtype="float32", join_keys=("user",)) for view in VIEWS for n in range(10)
    ]
    return Contract(
        model="m",
        version="1",
        project="p",
        feature_service="s",
        fingerprint=sha256(b""),
        entities=(Entity(name="user", join_key="user", dtype="string"),),
        request_features=(),
        features=tuple(features),
        outputs=(Output(name="probability", dtype="float32", meaning="probability"),),
        training=Training(start="2026-01-01", end="2026-02-01", rows=1, data_digest=sha256(b"")),
        packages={},
    )


def _request(
    contract: Contract, number: int
) -> tuple[dict[str, np.ndarray[tuple[int], np.dtype[np.object_]]], Hydrated, PredictResponse]:
    random = np.random.default_rng(number)
    columns = {feature.input: random.normal(size=1).astype(np.float32) for feature in contract.features}
    states = dict.fromkeys(columns, (FeatureState.PRESENT,))
    event_us = {view: [AT_US - number * 1000] for view in VIEWS}
    hydrated = Hydrated(columns, states, degraded=False, at_us=AT_US + number * 100, event_us=lambda: event_us)
    response = PredictResponse({"probability": random.random(1).astype(np.float32)}, states, degraded=False)
    return {"user": np.array([f"u{number}"], object)}, hydrated, response


def _ignore(_: object) -> None:
    """Answer nobody."""


if __name__ == "__main__":
    raise SystemExit(main())
