"""What an experiment costs a request in the server, in CPU time: ``python tools/bench/exposures.py``.

Judging, tallying and minting alone, in one process: what a request with a verified experiment header pays on top of
one without. Medians of rounds of CPU time; a unit comes back every fourth request, tallies are taken away as by the
reporter.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from fairlead.assignment import Layout, assign
from fairlead.clock import SystemClock
from fairlead.feedback.keys import KeyRing, SigningKey
from fairlead.feedback.serving import FEEDBACK_FILE, Feedback
from fairlead.route import EXPERIMENT_HEADER, ExperimentRoute, RouteKey, verify
from fairlead_server.exposure.experiment import ExperimentReader, RawHeaders
from fairlead_server.exposure.exposures import Exposures
from fairlead_server.exposure.keys import FILE_NAME, RouteKeys
from fairlead_server.exposure.nonces import Nonces
from fairlead_server.exposure.tally import Tally
from fairlead_server.exposure.told import ToldFeedback
from fairlead_server.metrics import ServerMetrics
from fairlead_server.predict.request import PredictResponse

SALT = "flights/arrival-delay/carriers-2026-01"
LAYOUT = Layout.of("logistic", {"boosted": 5000})
KEY = RouteKey("k1", bytes(16))
REVISION = "arrival-delay-boosted-6f1c9d00"
ROUNDS = 9
REQUESTS = 10_000
TAKEN_EVERY = 2000
ANSWER = PredictResponse({"probability_late": np.array([0.25], np.float32)}, None, degraded=False)

Headers = list[tuple[bytes, bytes]]


def main() -> int:
    """Measure and print; return the exit code."""
    argparse.ArgumentParser(description=__doc__, epilog="Example: python tools/bench/exposures.py").parse_args()
    with tempfile.TemporaryDirectory() as folder:
        costs = dict(_costs(Path(folder)))
    table = Table("what", "CPU us per request", title="An experiment's cost")
    for what, cost_us in costs.items():
        table.add_row(what, f"{cost_us:.2f}")
    Console().print(table)
    return 0


def _costs(folder: Path) -> Iterator[tuple[str, float]]:
    value = ExperimentRoute(SALT, 1, REVISION, "boosted", LAYOUT, "header:x-unit-id").sign(KEY)
    units = [unit for unit in (f"N{n}" for n in range(6 * REQUESTS)) if assign(unit, SALT, LAYOUT) == "boosted"]
    requests = [_headers(value, units[n // 4 * 4 % len(units)]) for n in range(REQUESTS)]
    (folder / FILE_NAME).write_text(json.dumps({"keys": [{"id": KEY.id, "secret": KEY.secret.hex()}]}))
    yield "headers by name", _median_us(requests, _named)
    yield "verifying the header anew", _median_us(requests, lambda _: verify(value, {KEY.id: KEY}))
    silent, _ = _exposures(folder, "silent")
    yield "no experiment", _median_us(requests, lambda _: silent.answered({}, ANSWER, 900))
    yield "experiment, no feedback", _median_us(requests, lambda headers: silent.answered(_named(headers), ANSWER, 900))
    ring = KeyRing((SigningKey("k1", bytes(32)),), bytes(32))
    (folder / FEEDBACK_FILE).write_text(Feedback("http://127.0.0.1:1", ring, covariates={SALT: "a"}).dumped())
    told, tally = _exposures(folder, "told")

    numbers = count(1)

    def answer(headers: Headers) -> None:
        told.answered(_named(headers), ANSWER, 900)
        if next(numbers) % TAKEN_EVERY == 0:
            tally.take()

    yield "experiment, token and tally", _median_us(requests, answer)


def _exposures(folder: Path, variant: str) -> tuple[Exposures, Tally]:
    metrics = ServerMetrics(CollectorRegistry()).of(model="arrival-delay", variant=variant)
    tally = Tally(most_sums=50_000, most_known_units=100_000)
    exposures = Exposures(
        reader=ExperimentReader(RouteKeys(folder), REVISION, metrics),
        feedback=ToldFeedback(folder).current,
        tally=tally,
        output="probability_late",
        clock=SystemClock(),
        metrics=metrics,
        nonce=Nonces(),
    )
    return exposures, tally


def _headers(value: str, unit: str) -> Headers:
    """Return headers as a gateway sends them."""
    named = {
        "host": "arrival-delay.flights.svc",
        "accept": "*/*",
        "user-agent": "python-httpx/0.28.1",
        "content-type": "application/json",
        "content-length": "120",
        "x-forwarded-proto": "http",
        "x-request-id": "5a4e8e5e-7f0e-4a4e-9a53-2b5a0d3d1b52",
        "x-envoy-expected-rq-timeout-ms": "5000",
        EXPERIMENT_HEADER: value,
        "x-unit-id": unit,
    }
    return [(name.encode(), text.encode()) for name, text in named.items()]


def _named(headers: Headers) -> RawHeaders:
    return RawHeaders(headers)


def _median_us(requests: list[Headers], answer: Callable[[Headers], object]) -> float:
    rounds: list[float] = []
    for _ in range(ROUNDS):
        start_s = time.process_time()
        for headers in requests:
            answer(headers)
        rounds.append((time.process_time() - start_s) / len(requests) * 1e6)
    return statistics.median(rounds)


if __name__ == "__main__":
    raise SystemExit(main())
