"""What a replay showed: per arm as figures, as a table, and as ``result.json``."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from fairlead.policy import FeatureState
from flights.law import Law, PhaseReport, obedience
from flights.outcomes import Told
from flights.replay import Answers
from flights.scores import score
from flights.traffic import Asks

_OWED = FeatureState.STORE_ERROR
_LATE_SHARE = 0.001
"""Of feature values may miss the hydration deadline, as on a machine that is busy besides; all are shown."""


@dataclass(frozen=True, slots=True)
class ArmReport:
    """What one variant answered."""

    requests: int
    units: int
    """Different units that it answered; requests without a unit are not counted here."""
    brier: float | None
    log_loss: float | None
    labelled: int
    """Answers whose flight has landed."""
    states: dict[str, int]
    """Feature values served, by state."""
    p50_ms: float
    """Median from when a request was due to its answer, milliseconds."""
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How the experiment ended, as `fairlead up` and its ledger tell it."""

    verdict: str
    """Of the last analysis: Pass, Fail, Insufficient, NoData or Invalid."""
    reason: str
    decision: str | None
    """Promote or Rollback; None if nothing was decided."""
    decided_because: str | None
    winner: str | None
    decided_at: str | None
    """Simulated time, ISO 8601 UTC."""
    page: str | None
    """Address of the experiment's page, while `fairlead up` runs."""
    page_file: str | None
    """The page as it was in the end, from the repository's root."""
    record: str | None
    """The decision record, from the repository's root."""
    lines: tuple[str, ...]
    """What was found, metric by metric, in sentences."""
    outcomes: Told
    """What became of the labels that the ledger was told."""


@dataclass(frozen=True, slots=True)
class Report:
    """The whole replay."""

    scenario: str
    conclusion: Conclusion | None
    """None if there was no experiment."""
    seconds: dict[str, float]
    """Real seconds by phase."""
    rate_per_s: float
    """Requests per second that the replay was to send, on average."""
    arms: dict[str, ArmReport]
    exposed: int
    """Answers that the experiment counts: those with a prediction token."""
    phases: tuple[PhaseReport, ...]
    """Who was exposed to what, by planned step; empty without an experiment."""
    mismatched_assignments: int
    """Requests answered by another variant than the law says, or with a token that says something else."""
    mismatched_states: int
    """Feature values served in another state than the raw data gives; store errors, counted by themselves, left out."""
    lost: int
    """Requests without an answer."""
    errors: dict[str, int]
    """Failures by kind."""

    @property
    def failures(self) -> list[str]:
        """Return what must not be, one line each; empty when all is well."""
        values = sum(sum(arm.states.values()) for arm in self.arms.values())
        store_errors = sum(arm.states.get(FeatureState.STORE_ERROR, 0) for arm in self.arms.values())
        found = {
            "requests lost": self.lost,
            "requests answered by another variant than the assignment law says": self.mismatched_assignments,
            "feature values in another state than the raw data gives": self.mismatched_states,
            "feature values lost to store errors": store_errors if store_errors > _LATE_SHARE * values else 0,
        }
        return [f"{count} {what}" for what, count in found.items() if count]

    @property
    def story(self) -> list[str]:
        """Return how the experiment ended, in sentences."""
        end = self.conclusion
        if end is None:
            return []
        done = "nothing was decided"
        if end.decision == "Promote":
            done = f"{end.winner} was promoted on {end.decided_at}"
        elif end.decision is not None:
            done = f"{end.decision} on {end.decided_at} ({end.decided_because})"
        refused = ", ".join(f"{count:,} {why}" for why, count in end.outcomes.refused.items())
        return [
            f"verdict: {end.verdict} ({end.reason}); {done}",
            *(f"  {line}" for line in end.lines),
            f"  labels told to the ledger: {end.outcomes.accepted:,} taken, {refused or 'none'} refused",
            f"  the page, as it was in the end: {end.page_file}; the decision record: {end.record}",
        ]

    def write(self, path: Path) -> None:
        """Write the report as JSON, in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        told = {"scenario": self.scenario, **(asdict(self.conclusion) if self.conclusion else {})}
        figures = {name: value for name, value in asdict(self).items() if name not in {"scenario", "conclusion"}}
        fresh.write_text(json.dumps({**told, **figures}, indent=2, allow_nan=False) + "\n")
        fresh.replace(path)


def report(
    asks: Asks,
    answers: Answers,
    *,
    law: Law,
    expected_states: Mapping[str, Mapping[str, list[str]]],
    seconds: dict[str, float],
    rate_per_s: float,
    scenario: str = "default",
    conclusion: Conclusion | None = None,
) -> Report:
    """Compare what was answered with what the law and the raw data say.

    Args:
        asks: The requests.
        answers: What came back, in the same order.
        law: How units were to be split.
        expected_states: By variant and feature (``view__name``), the state of each request, in the same order.
        seconds: Real seconds by phase.
        rate_per_s: Requests per second that the replay was to send, on average.
        scenario: What was played.
        conclusion: How the experiment ended; None if there was none.
    """
    obeyed = obedience(asks, answers, law)
    arms = sorted({piece.arm for layout in law.phases for piece in layout.slices} | {law.control})
    units = _units(asks, answers)
    return Report(
        scenario=scenario,
        conclusion=conclusion,
        seconds={phase: round(value, 2) for phase, value in seconds.items()},
        rate_per_s=round(rate_per_s, 1),
        arms={arm: _arm(asks, answers, arm, units=len(units[arm])) for arm in arms},
        exposed=obeyed.exposed,
        phases=obeyed.phases,
        mismatched_assignments=obeyed.mismatched,
        mismatched_states=_mismatched_states(answers, expected_states),
        lost=answers.lost,
        errors=answers.errors,
    )


def _units(asks: Asks, answers: Answers) -> defaultdict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for unit, variant in zip(asks.units, answers.variant, strict=True):
        if unit and variant:
            found[variant].add(unit)
    return found


def _arm(asks: Asks, answers: Answers, arm: str, *, units: int) -> ArmReport:
    served = np.array([variant == arm for variant in answers.variant], dtype=bool)
    labelled = served & answers.labelled
    scored = score(answers.probability[labelled], asks.late[labelled])
    latency_ms = answers.latency_s[served] * 1e3
    p50, p99 = np.nanpercentile(latency_ms, [50, 99]) if latency_ms.size else (0.0, 0.0)
    states: Counter[str] = Counter()
    for index in np.flatnonzero(served):
        states.update((answers.states[index] or {}).values())
    return ArmReport(
        requests=int(served.sum()),
        units=units,
        brier=scored.brier,
        log_loss=scored.log_loss,
        labelled=scored.labelled,
        states={state: states.get(state, 0) for state in FeatureState},
        p50_ms=round(float(p50), 3),
        p99_ms=round(float(p99), 3),
    )


def _mismatched_states(answers: Answers, expected: Mapping[str, Mapping[str, list[str]]]) -> int:
    wrong = 0
    for index, (variant, states) in enumerate(zip(answers.variant, answers.states, strict=True)):
        if variant is None or states is None:
            continue
        wanted = expected[variant]
        found = {feature: states.get(feature) for feature in wanted}
        wrong += sum(found[name] not in {column[index], _OWED} for name, column in wanted.items())
    return wrong


def as_table(result: Report) -> Table:
    """Return the report as a table, one column per variant."""
    table = Table(title="Flights of 2013, replayed", title_justify="left")
    table.add_column("")
    for name in result.arms:
        table.add_column(name, justify="right")
    for label, cell in _ROWS.items():
        table.add_row(label, *(cell(name, result) for name in result.arms))
    for phase in result.phases:
        label = f"step {phase.number + 1}: units exposed (share, target)"
        table.add_row(label, *(_exposed(phase, name) for name in result.arms))
    for state in FeatureState:
        table.add_row(f"features {state}", *(f"{arm.states[state]:,}" for arm in result.arms.values()))
    table.caption = ", ".join(f"{phase} {value:.0f} s" for phase, value in result.seconds.items())
    return table


def _exposed(phase: PhaseReport, arm: str) -> str:
    return f"{phase.units[arm]:,} ({phase.share[arm]:.1%}, {phase.target[arm]:.1%})"


def _score_text(value: float | None) -> str:
    return "no labels" if value is None else f"{value:.4f}"


_ROWS: dict[str, Callable[[str, Report], str]] = {
    "requests": lambda name, r: f"{r.arms[name].requests:,}",
    "units": lambda name, r: f"{r.arms[name].units:,}",
    "p50": lambda name, r: f"{r.arms[name].p50_ms:.1f} ms",
    "p99": lambda name, r: f"{r.arms[name].p99_ms:.1f} ms",
    "labels in": lambda name, r: f"{r.arms[name].labelled:,}",
    "Brier (lower is better)": lambda name, r: _score_text(r.arms[name].brier),
    "log loss (lower is better)": lambda name, r: _score_text(r.arms[name].log_loss),
}
