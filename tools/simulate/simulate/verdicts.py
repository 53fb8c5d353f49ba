"""The whole rollout, verdict by verdict: a ramp of two steps in a world that drifts, analysed at every look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fairlead.experiment.analysis import analyse
from fairlead.experiment.design import (
    Better,
    Design,
    Effect,
    Guardrail,
    Kind,
    Metric,
    Objective,
    Phase,
    Scale,
    Source,
)
from fairlead.experiment.evidence import ArmEvidence, Evidence, FirstValues, PhaseEvidence, Sums
from fairlead.experiment.report import Reason, Report, Verdict
from simulate.accrual import grow
from simulate.judging import NEVER, arm
from simulate.paths import CAP
from simulate.population import Floats, Population, Requests
from simulate.setting import Columns
from simulate.worlds import Ramp, ramped

ARMS = ("control", "treatment")
SALT = "simulated/experiment/e1"
_END_US = 10 * 86_400 * 1_000_000
_SCORE = Metric(name="score", kind=Kind.PROPORTION, better=Better.LOWER, source=Source.OUTCOME)
_COMPLAINT = Metric(name="complaint", kind=Kind.PROPORTION, better=Better.LOWER, source=Source.OUTCOME)
_WORDS = {
    "superior": (Verdict.PASS, Reason.SUPERIOR),
    "harmful": (Verdict.FAIL, Reason.HARMFUL),
    "breached": (Verdict.FAIL, Reason.GUARDRAIL_BREACHED),
    "no_worthwhile_effect": (Verdict.FAIL, Reason.NO_WORTHWHILE_EFFECT),
    "sample_ratio": (Verdict.INVALID, Reason.SAMPLE_RATIO),
    "label_coverage": (Verdict.INVALID, Reason.LABEL_COVERAGE),
}
"""Verdicts that end or hold a rollout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """10 %, then 50 %, until the first verdict that ends it; an objective, and a guardrail of a rare event."""

    ramp: Ramp
    population: Population
    lift: float = 0.0
    """What the treatment changes the objective by, relative; 0 or less."""
    complaints: tuple[float, float] = (0.01, 0.01)
    """Of each arm, per request."""
    minimum_effect: float = 0.1
    """Relative."""
    margin: float = 0.01
    """Of complaints, absolute."""
    looks: int = 50
    """Over both steps."""

    def __call__(self, rng: np.random.Generator, runs: int) -> Columns:
        """Simulate so many runs."""
        ends = [self._run(rng) for _ in range(runs)]
        told = {name: np.array([float(end == name) for end, _ in ends]) for name in (*_WORDS, "undecided")}
        return {**told, "stop": np.array([stop for _, stop in ends])}

    def _run(self, rng: np.random.Generator) -> tuple[str, float]:
        for look, report in enumerate(self._reports(rng), start=1):
            for name, said in _WORDS.items():
                if (report.verdict, report.reason) == said:
                    return name, look / self.looks
        return "undecided", NEVER

    def _reports(self, rng: np.random.Generator) -> Iterator[Report]:
        design = self._design()
        steps = ramped(self.ramp, self.population, rng)
        before: list[PhaseEvidence] = []
        known: np.ndarray = np.zeros(self.population.units, np.bool_)
        for number, drawn in enumerate(steps):
            looks = round(self.looks * (self.ramp.until if number == 0 else 1 - self.ramp.until))
            seen = list(self._seen(number, drawn, known, looks, rng))
            for look, phase in enumerate(seen, start=1):
                evidence = Evidence(salt=SALT, phases=(*before, phase))
                yield analyse(design, evidence, phase=number, now_us=(number + 1) * _END_US + look)
            before.append(seen[-1])
            known[drawn.unit] = True

    def _design(self) -> Design:
        steps = (
            Phase(number=number, weights_bp={ARMS[1]: round(share * 10_000)})
            for number, share in enumerate(self.ramp.shares)
        )
        return Design(
            salt=SALT,
            control=ARMS[0],
            treatments=ARMS[1:],
            phases=tuple(steps),
            objective=Objective(metric=_SCORE, minimum_effect=Effect(size=self.minimum_effect, scale=Scale.RELATIVE)),
            guardrails=(Guardrail(metric=_COMPLAINT, margin=Effect(size=self.margin, scale=Scale.ABSOLUTE)),),
        )

    def _seen(
        self, number: int, drawn: Requests, known: np.ndarray, looks: int, rng: np.random.Generator
    ) -> Iterator[PhaseEvidence]:
        treated = drawn.arm[drawn.unit] == 1
        worse = np.where(treated, 1.0 + self.lift, 1.0)
        score = replace(drawn, value=drawn.value * (rng.random(worse.size) < worse))
        rate = np.asarray(self.complaints)[drawn.arm[drawn.unit]]
        complaint = replace(drawn, value=(rng.random(rate.size) < rate).astype(np.float64))
        fresh = _firsts(drawn.only(~known[drawn.unit]), looks, drawn.time)
        grown = {one.name: self._sums(of, looks) for one, of in ((_SCORE, score), (_COMPLAINT, complaint))}
        firsts = {one.name: _firsts(of, looks, drawn.time) for one, of in ((_SCORE, score), (_COMPLAINT, complaint))}
        for look in range(looks):
            arms = {
                name: _arm_evidence(
                    {metric: sums[look][index] for metric, sums in grown.items()},
                    {metric: told[:, look, index] for metric, told in firsts.items()},
                    int(fresh[0, look, index]),
                )
                for index, name in enumerate(ARMS)
            }
            yield PhaseEvidence(number=number, started_us=number * _END_US, arms=arms)

    @staticmethod
    def _sums(drawn: Requests, looks: int) -> list[list[Sums]]:
        moments = grow(drawn, looks=looks, cap=CAP, centre=0.0).moments  # of 0 and 1: whole numbers, exact
        return [
            [
                Sums.from_moments(replace(of, **{name: getattr(of, name)[look] for name in type(of).__slots__}))
                for of in (arm(moments, 0), arm(moments, 1))
            ]
            for look in range(looks)
        ]


def _firsts(drawn: Requests, looks: int, times: Floats) -> Floats:
    """Return units seen until each look, and the sum of the values of their first requests: [2, looks, arms]."""
    ends = np.sort(times)[np.ceil(np.arange(1, looks + 1) * times.size / looks).astype(np.int64) - 1]
    first = drawn.only(np.diff(drawn.unit, prepend=-1) > 0)
    cell = np.searchsorted(ends, first.time) * 2 + first.arm[first.unit]
    return np.stack(
        [
            np.bincount(cell, weight, minlength=looks * 2).reshape(looks, 2).cumsum(axis=0)
            for weight in (np.ones_like(first.value), first.value)
        ]
    )


def _arm_evidence(metrics: dict[str, Sums], firsts: dict[str, Floats], fresh: int) -> ArmEvidence:
    score = metrics[_SCORE.name]
    return ArmEvidence(
        first_exposures=fresh,
        units=score.units,
        requests=int(score.n),
        matured_units=score.units,
        labelled_units=score.units,
        matured_requests=int(score.n),
        labelled_requests=int(score.n),
        metrics=metrics,
        first_values={name: FirstValues(units=int(told[0]), total=float(told[1])) for name, told in firsts.items()},
    )
