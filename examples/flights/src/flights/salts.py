"""How often the demo's experiment decides: the same flights under many salts. ``python -m flights.salts``.

What either model says of every flight of November and December is computed once; then each salt draws the planes anew
and the engine's own analysis looks once a simulated day at what would be known by then. Guardrails are left out: they
depend on the machine, not on the draw.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import onnxruntime
import pandas as pd
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from fairlead import Contract
from fairlead.assignment import Layout, assign
from fairlead.clock import to_us
from fairlead.experiment.analysis import analyse
from fairlead.experiment.design import Design
from fairlead.experiment.evidence import ArmEvidence, Evidence, PhaseEvidence, Sums
from fairlead.experiment.report import Reason, Report, Verdict
from fairlead_operator.api.manifest import read
from fairlead_operator.api.v1alpha1 import seconds
from fairlead_operator.core.desired import desired_from
from flights import features
from flights.dataset import open_store, training_set
from flights.demo import OUTPUT, REPLAY_END
from flights.manifest import deployed
from flights.runs import SERVICES
from flights.training import MANIFEST

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Flights:
    """Labelled flights in the order they were asked about; n is their number."""

    planes: tuple[str, ...]
    """Every plane once."""
    plane: NDArray[np.int64]
    """Which of them, shape [n]."""
    asked_s: NDArray[np.float64]
    """Seconds after the replay's start, shape [n]."""
    loss: dict[str, NDArray[np.float64]]
    """Squared error of what a variant says, by variant, shape [n]."""


@dataclass(frozen=True, slots=True)
class End:
    """How an experiment ended."""

    verdict: str
    reason: str
    day: float
    """Of the replay."""


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog="Example: python -m flights.salts --salts 200")
def main(
    salts: Annotated[int, typer.Option(help="How many, beside the example's own.", min=1)] = 200,
    aa: Annotated[bool, typer.Option("--aa", help="Let control's model be both.")] = False,
) -> None:
    """Say how often the demo's experiment decides, and when."""
    deployment = read(MANIFEST).deployment
    design = desired_from(deployment, "0").design
    if design is None:
        raise typer.BadParameter(f"{MANIFEST} has no experiment that is judged")
    hold_s = seconds(deployment.spec.rollout.steps[0].hold or "0s")
    flights = _flights(design.treatments[0])
    if aa:
        flights.loss[design.treatments[0]] = flights.loss[design.control]
    design = design.model_copy(update={"guardrails": ()})
    names = [design.salt, *(f"{design.salt}-{number}" for number in range(salts))]
    own, *ends = [
        end_of(design.model_copy(update={"salt": name}), flights, hold_s)
        for name in track(names, console=Console(stderr=True), transient=True)
    ]
    for (verdict, reason), count in Counter((end.verdict, end.reason) for end in ends).most_common():
        days = [end.day for end in ends if (end.verdict, end.reason) == (verdict, reason)]
        typer.echo(f"{verdict} ({reason}): {count / salts:.1%} of {salts} salts, median day {np.median(days):.0f}")
    typer.echo(f"the example's own: {own.verdict} ({own.reason}) on day {own.day:.0f}")


def end_of(design: Design, flights: Flights, hold_s: float) -> End:
    """Return how an experiment would end under one salt.

    Args:
        design: Without guardrails.
        flights: What is replayed.
        hold_s: Until the last step begins, seconds after the replay's start.
    """
    last = design.phases[-1]
    layout = Layout.of(design.control, last.weights_bp)
    arm_of = np.array([assign(plane, design.salt, layout) == design.treatments[0] for plane in flights.planes])
    counts = flights.asked_s >= hold_s
    counts[counts] = _nth(flights.plane[counts]) < design.requests_per_unit
    horizon_s = hold_s + (design.maximum_duration_s or np.inf)
    end_s = min(horizon_s, float(flights.asked_s[-1]) + design.outcome_window_s) + _DAY_S
    for now_s in np.arange(hold_s + _DAY_S, end_s + _DAY_S, _DAY_S):
        ripe = counts & (flights.asked_s < min(now_s, horizon_s) - design.outcome_window_s)
        report = _look(design, flights, arm_of, ripe, hold_s=hold_s, now_s=float(now_s))
        if report.verdict in {Verdict.PASS, Verdict.FAIL} or report.reason is Reason.HORIZON_REACHED:
            break
    return End(report.verdict.value, report.reason.value, float(now_s) / _DAY_S)


def _look(
    design: Design,
    flights: Flights,
    arm_of: NDArray[np.bool_],
    ripe: NDArray[np.bool_],
    *,
    hold_s: float,
    now_s: float,
) -> Report:
    name = design.objective.metric.name if design.objective else ""
    treated = arm_of[flights.plane]
    arms = {}
    for arm, mine in ((design.control, ~treated), (design.treatments[0], treated)):
        seen = ripe & mine
        requests = np.bincount(flights.plane[seen], minlength=len(flights.planes))
        losses = np.bincount(flights.plane[seen], weights=flights.loss[arm][seen], minlength=len(flights.planes))
        sums = Sums.of(requests[requests > 0], losses[requests > 0])
        units, total = int((requests > 0).sum()), int(requests.sum())
        arms[arm] = ArmEvidence(
            first_exposures=units,
            units=units,
            requests=total,
            matured_units=units,
            labelled_units=units,
            matured_requests=total,
            labelled_requests=total,
            metrics={name: sums},
        )
    start_us = to_us(features.REPLAY_START)
    phase = PhaseEvidence(number=design.phases[-1].number, started_us=start_us + round(hold_s * 1e6), arms=arms)
    evidence = Evidence(salt=design.salt, phases=(phase,))
    return analyse(design, evidence, phase=phase.number, now_us=start_us + round(now_s * 1e6))


def _nth(plane: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return of each flight how many of the same plane were before it."""
    return np.asarray(pd.Series(plane).groupby(plane).cumcount(), dtype=np.int64)


def _flights(treatment: str) -> Flights:
    store, tables = open_store(), {}
    for variant in SERVICES:
        rows = training_set(SERVICES[variant], features.REPLAY_START, REPLAY_END, store=store)
        session = onnxruntime.InferenceSession(deployed(MANIFEST, variant).path, providers=["CPUExecutionProvider"])
        contract = Contract.from_metadata(session.get_modelmeta().custom_metadata_map, variant)
        inputs = {name: rows[name].to_numpy(dtype=kind).reshape(-1, 1) for name, kind in contract.tensor_inputs.items()}
        said = session.run([OUTPUT], inputs)[0].ravel().astype(np.float64)
        rows[variant] = (said - rows["late"].to_numpy(np.float64)) ** 2
        tables[variant] = rows.set_index("flight_id")
    rows = tables[treatment].join(tables[next(name for name in SERVICES if name != treatment)], rsuffix="_other")
    rows = rows[rows["tailnum"].notna()].sort_values(["asked_at"], kind="stable")
    planes, plane = np.unique(rows["tailnum"].to_numpy(str), return_inverse=True)
    since = (rows["asked_at"] - pd.Timestamp(features.REPLAY_START)).dt.total_seconds()
    asked_s = np.asarray(since, dtype=np.float64)
    return Flights(tuple(planes.tolist()), plane, asked_s, {name: rows[name].to_numpy(np.float64) for name in SERVICES})


if __name__ == "__main__":
    app()
