"""Evidence of made-up experiments: units with many requests, and a treatment that does something to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fairlead.experiment.design import (
    Better,
    Design,
    Effect,
    Guardrail,
    Kind,
    Meaning,
    Metric,
    Objective,
    Phase,
    Scale,
    Source,
)
from fairlead.experiment.evidence import ArmEvidence, Evidence, FirstValues, PhaseEvidence, Sums
from fairlead.experiment.metrics import metric_of
from fairlead.experiment.sums import Array

SALT = "flights/arrival-delay/e1"
START_US = 1_700_000_000_000_000
HOUR_US = 3_600_000_000
BRIER = metric_of("brier", meaning=Meaning.PROBABILITY, declared={})
LATENCY = metric_of("latency_ms", meaning=None, declared={})
ERROR = metric_of("error", meaning=None, declared={})
CLICKS = Metric(name="clicks", kind=Kind.PROPORTION, better=Better.HIGHER, source=Source.OUTCOME)


def relative(size: float) -> Effect:
    return Effect(size=size, scale=Scale.RELATIVE)


def absolute(size: float) -> Effect:
    return Effect(size=size, scale=Scale.ABSOLUTE)


def design_of(
    *,
    treatments: tuple[str, ...] = ("boosted",),
    steps: tuple[int, ...] = (1000, 5000),
    objective: Objective | None = Objective(metric=BRIER, minimum_effect=relative(0.05)),  # noqa: B008 -- frozen
    guardrails: tuple[Guardrail, ...] = (
        Guardrail(metric=LATENCY, margin=relative(0.1)),
        Guardrail(metric=ERROR, margin=absolute(0.01)),
    ),
    **more: object,
) -> Design:
    phases = tuple(
        Phase(number=number, weights_bp={arm: weight // len(treatments) for arm in treatments})
        for number, weight in enumerate(steps)
    )
    return Design.model_validate(
        {
            "salt": SALT,
            "control": "logistic",
            "treatments": treatments,
            "phases": phases,
            "objective": objective,
            "guardrails": guardrails,
            "meaning": Meaning.PROBABILITY,
            **more,
        }
    )


@dataclass(frozen=True)
class Arm:
    """What an arm does to each request."""

    brier: float = 0.2
    latency_ms: float = 5.0
    error: float = 0.001
    units: int = 4000
    labelled: float = 1.0
    """Share of units with outcomes."""
    requests: float = 5.0
    """Per unit, on average."""
    first_exposures: int | None = None
    """``units``, unless told."""
    seed: int = 1
    metrics: Mapping[str, float] = field(default_factory=dict)


def arm_evidence(arm: Arm, *, cap: int = 50) -> ArmEvidence:
    """Return what would be seen of an arm, drawn at random but always alike."""
    rng = np.random.Generator(np.random.Philox(arm.seed))
    n = np.minimum(1 + rng.geometric(1 / arm.requests, arm.units), cap).astype(np.float64)
    labelled = rng.random(arm.units) < arm.labelled
    errors = rng.binomial(n.astype(np.int64), arm.error).astype(np.float64)
    first = (rng.random(arm.units) < arm.error).astype(np.float64)
    return ArmEvidence(
        first_exposures=arm.units if arm.first_exposures is None else arm.first_exposures,
        units=arm.units,
        requests=int(n.sum()),
        matured_units=arm.units,
        labelled_units=int(labelled.sum()),
        matured_requests=int(n.sum()),
        labelled_requests=int(n[labelled].sum()),
        metrics={
            "brier": Sums.of(n[labelled], _totals(rng, n, arm.brier)[labelled]),
            "latency_ms": Sums.of(n, _totals(rng, n, arm.latency_ms)),
            "error": Sums.of(n, errors),
        },
        activity=Sums.of(np.ones(arm.units), n),
        first_values={"error": FirstValues(units=arm.units, total=float(first.sum()))},
    )


def evidence_of(arms: Mapping[str, Arm], *, phase: int = 1, down: tuple[str, ...] = ()) -> Evidence:
    """Return the evidence of one phase; arms differ in what is drawn, too."""
    seen = {name: arm_evidence(arm) for name, arm in arms.items()}
    return Evidence(salt=SALT, phases=(PhaseEvidence(number=phase, started_us=START_US, arms=seen),), down=down)


def two(control: Arm | None = None, treatment: Arm | None = None) -> dict[str, Arm]:
    """Return a pair of arms; what is not said is as ever, with draws of its own."""
    return {"logistic": control or Arm(seed=1), "boosted": treatment or Arm(seed=2)}


def _totals(rng: np.random.Generator, n: Array, level: float) -> Array:
    """Return a unit's totals: its own level, and noise of each request."""
    own = level * rng.gamma(20.0, 1 / 20.0, n.size)
    return np.maximum(n * own + np.sqrt(n) * 0.5 * level * rng.normal(size=n.size), 0.0)
