"""Puts together what answers tokens and what reports exposures, for one loaded model."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.clock import Clock
from fairlead_server.exposure.experiment import ExperimentReader
from fairlead_server.exposure.exposures import Exposures
from fairlead_server.exposure.keys import RouteKeys
from fairlead_server.exposure.nonces import Nonces
from fairlead_server.exposure.outbox import Outbox
from fairlead_server.exposure.reporter import Pace, Reporter
from fairlead_server.exposure.sink import CarrierSink
from fairlead_server.exposure.tally import Tally
from fairlead_server.exposure.told import ToldFeedback
from fairlead_server.metrics import FeedbackState

if TYPE_CHECKING:
    from fairlead_server.predict.predictor import Predictor  # imports feast

MOST_SUMS = 50_000
"""Sums per unit and minute between two reports, about 15 MB."""
MOST_KNOWN_UNITS = 100_000
"""Units that are remembered as reported, about 20 MB."""
_HOST_CHARACTERS = 96


def feedback_of(
    predictor: Predictor,
    clock: Clock,
    *,
    serving_dir: Path | None,
    spool_dir: Path | None,
    spool_bytes: int,
    pace: Pace,
) -> tuple[Exposures, Reporter]:
    """Return what a model's requests are judged by, and what reports on them; the latter is not started.

    Args:
        predictor: The loaded model.
        clock: What time it is.
        serving_dir: Folder with what the operator tells; None for a server that has no operator.
        spool_dir: Folder of reports that wait; None to keep them in memory.
        spool_bytes: Size of the reports that may wait.
        pace: When reports are made and sent.
    """
    metrics = predictor.metrics
    told = ToldFeedback(serving_dir)
    tally = Tally(most_sums=MOST_SUMS, most_known_units=MOST_KNOWN_UNITS)
    exposures = Exposures(
        reader=ExperimentReader(RouteKeys(serving_dir), predictor.revision, metrics),
        feedback=told.current,
        tally=tally,
        output=primary_output(predictor),
        clock=clock,
        metrics=metrics,
        nonce=Nonces(),
    )
    reporter = Reporter(
        server=f"{socket.gethostname()[:_HOST_CHARACTERS]}-{os.urandom(8).hex()}",
        tally=tally,
        outbox=lambda: Outbox(spool_dir, spool_bytes),
        sink=CarrierSink(),
        feedback=told.current,
        clock=clock,
        metrics=metrics,
        pace=pace,
        chance=random.SystemRandom(),
    )
    metrics.watch_feedback(lambda: _state(tally, reporter))
    return exposures, reporter


def primary_output(predictor: Predictor) -> str | None:
    """Return the output that tokens carry; None for a model that answers no number, or has no contract."""
    primary = None if predictor.contract is None else predictor.contract.primary_output
    return None if primary is None else primary.name


def _state(tally: Tally, reporter: Reporter) -> FeedbackState:
    report = reporter.report
    return FeedbackState(
        first_exposures=tally.firsts_total,
        dropped_requests=tally.dropped_total,
        forgotten_units=tally.forgotten_total,
        spool_failures=reporter.spool_failures,
        waiting_reports=report.waiting,
        waiting_bytes=reporter.waiting_bytes,
        last_success_us=report.last_success_us,
    )
