"""From a design and the evidence of a phase to a verdict.

The policy: a treatment *passes* when it is better in the objective and no worse than the margin in every guardrail, all
at the same alpha (intersection-union: no correction is needed, for each claim must hold; Schultzberg, Ankargren,
Frånberg 2024, Risk-aware product decisions in A/B tests with multiple metrics). Alarms that a guardrail is breached
share alpha over guardrails and phases, and all claims share it over treatments. The objective is judged in the last
phase alone; phases are never pooled, for ramping while the world drifts is Simpson's paradox. What makes the comparison
itself doubtful comes first, and silence never decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from fairlead.experiment import bounds, label_coverage, metrics, sample_ratio
from fairlead.experiment.design import Better, Design, Source
from fairlead.experiment.errors import UnfitEvidence
from fairlead.experiment.evidence import ArmEvidence, Evidence, PhaseEvidence, Sums
from fairlead.experiment.judging import Allowance, Pair, judge_activity, judge_guardrail, judge_objective
from fairlead.experiment.report import (
    ArmReport,
    Check,
    Finding,
    MetricReport,
    Plan,
    Reason,
    Report,
    Role,
    Verdict,
)
from fairlead.experiment.trials import Trials
from fairlead.experiment.wording import estimand_of

_UNLABELLED_UNITS = 100
"""Matured units without a single outcome among them, from which on outcomes are taken to have stopped."""
_SILENT = {Source.SYSTEM: {"exposures", "gateway"}}
"""Sources that a metric needs alive, by who tells it."""
_SILENT_OUTCOMES = {"exposures", "outcomes"}
_SOURCES = ("exposures", "outcomes", "gateway")


def analyse(design: Design, evidence: Evidence, *, phase: int, now_us: int) -> Report:
    """Return what the evidence of one phase says.

    Args:
        design: As planned.
        evidence: Of that design, with every phase that has begun.
        phase: Number of the phase to judge, by itself.
        now_us: By the experiment's clock, microseconds since 1970-01-01 UTC.

    Raises:
        UnfitDesign: The design cannot be judged.
        UnfitEvidence: The evidence is of another design, or that phase has not begun.
    """
    metrics.check(design)
    return _Analysis(design, evidence, _phase_of(design, evidence, phase), now_us).report()


def _phase_of(design: Design, evidence: Evidence, number: int) -> PhaseEvidence:
    if evidence.salt != design.salt:
        raise UnfitEvidence(f"{evidence.salt}: is another experiment than {design.salt}")
    planned = {one.number for one in design.phases}
    for seen in evidence.phases:
        if seen.number not in planned:
            raise UnfitEvidence(f"{design.salt}: phase {seen.number} is not in the design")
        if strange := seen.arms.keys() - set(design.arms):
            raise UnfitEvidence(f"{design.salt}: the design has no arm {', '.join(sorted(strange))}")
    found = evidence.phase(number)
    if found is None:
        raise UnfitEvidence(f"{design.salt}: phase {number} has not begun")
    return found


@dataclass(frozen=True, slots=True)
class _Said:
    """A verdict and what it rests on."""

    verdict: Verdict
    reason: Reason
    message: str
    winner: str | None = None


@dataclass(frozen=True)
class _Analysis:
    """One look at one phase."""

    design: Design
    evidence: Evidence
    phase: PhaseEvidence
    now_us: int

    def report(self) -> Report:
        """Return the whole report."""
        said = next(said for said in self._verdicts() if said is not None)
        return Report(
            salt=self.design.salt,
            design_digest=self.design.digest,
            phase=self.phase.number,
            is_final=self.is_final,
            at_us=self.now_us,
            verdict=said.verdict,
            reason=said.reason,
            message=said.message,
            winner=said.winner if self.is_final else None,
            arms=tuple(self._arm(name) for name in self.design.arms),
            metrics=self.judged,
            sample_ratio=self.sample_ratio,
            label_coverage=self.label_coverage,
            estimand=estimand_of(self.design),
            plan=self._plan(),
        )

    @cached_property
    def is_final(self) -> bool:
        """Whether the objective is judged."""
        return self.phase.number == self.design.phases[-1].number

    @cached_property
    def shares(self) -> dict[str, float]:
        """Planned share of each arm in this phase."""
        return dict(self.design.shares(self.phase.number))

    @cached_property
    def treatments(self) -> tuple[str, ...]:
        """Those that have a share in this phase."""
        return tuple(name for name in self.design.treatments if self.shares[name] > 0)

    def seen(self, arm: str) -> ArmEvidence:
        """Return what was seen of an arm in this phase."""
        return self.phase.arms.get(arm, ArmEvidence())

    @cached_property
    def judged(self) -> tuple[MetricReport, ...]:
        """Every metric of every treatment."""
        return tuple(one for name in self.treatments for one in self._metrics(name))

    def _metrics(self, name: str) -> Iterator[MetricReport]:
        smallest = min(share for share in self.shares.values() if share > 0)
        pair = Pair(name, self.seen(self.design.control), self.seen(name), smallest)
        claim = self.design.alpha / len(self.design.treatments)
        alarms = max(len(self.design.guardrails), 1) * len(self.design.phases)
        allowance = Allowance(claim=claim, alarm=claim / alarms)
        if self.design.objective:
            yield judge_objective(self.design.objective, pair, allowance, self.design.covariate)
        for guardrail in self.design.guardrails:
            yield judge_guardrail(guardrail, pair, allowance)
        yield judge_activity(pair, allowance)

    def _verdicts(self) -> Iterator[_Said | None]:
        """Yield what may be said, the weightiest first; the first that says something is the verdict."""
        yield self._breached(Source.SYSTEM)  # counted at the route, over requests that no exposure tells of
        yield self._silent()
        yield self._broken()
        yield self._breached(Source.ACTUAL, Source.OUTCOME)
        yield self._passed()
        yield self._failed()
        yield self._undecided()

    def _breached(self, *sources: Source) -> _Said | None:
        for one in self.judged:
            if one.role is not Role.GUARDRAIL or one.finding is not Finding.BREACHED:
                continue
            source = self.design.metrics[one.metric].source
            needed = _SILENT.get(source, _SILENT_OUTCOMES)
            if source in sources and not needed & set(self.evidence.down) and not self._has_winner():
                message = f"{one.treatment} breaches a guardrail. {one.message}"
                return _Said(Verdict.FAIL, Reason.GUARDRAIL_BREACHED, message)
        return None

    def _has_winner(self) -> bool:
        return self._broken() is None and self._silent() is None and self._passed() is not None and self.is_final

    def _silent(self) -> _Said | None:
        needed = {"exposures"} | ({"gateway"} if self._sources & {Source.SYSTEM} else set())
        needed |= {"outcomes"} if self._has_outcomes else set()
        if down := [name for name in _SOURCES if name in needed & set(self.evidence.down)]:
            return _Said(Verdict.NO_DATA, Reason.SOURCE_DOWN, f"No news from {', '.join(down)}: nothing is decided.")
        arms = [self.seen(name) for name in (self.design.control, *self.treatments)]
        if not any(arm.units or arm.first_exposures for arm in arms):
            return _Said(Verdict.NO_DATA, Reason.NOT_YET_MATURE, "No unit was exposed in this phase yet.")
        matured = sum(arm.matured_units for arm in arms)
        if self._has_outcomes and matured >= _UNLABELLED_UNITS and not any(arm.labelled_units for arm in arms):
            message = f"Of {matured} units that are old enough not one has an outcome: does the application post any?"
            return _Said(Verdict.NO_DATA, Reason.SOURCE_DOWN, message)
        return None

    @cached_property
    def _sources(self) -> set[Source]:
        return {metric.source for metric in self.design.metrics.values()}

    @cached_property
    def _has_outcomes(self) -> bool:
        return bool(self._sources & {Source.ACTUAL, Source.OUTCOME})

    def _broken(self) -> _Said | None:
        if self.sample_ratio.is_broken:
            message = (
                "The arms' units are not in the planned shares: units are lost or moved, and no effect can be read."
            )
            return _Said(Verdict.INVALID, Reason.SAMPLE_RATIO, message)
        if self.label_coverage is not None and self.label_coverage.is_broken:
            message = "Outcomes are missing more often in one arm: those that are there are no fair sample."
            return _Said(Verdict.INVALID, Reason.LABEL_COVERAGE, message)
        return None

    def _passed(self) -> _Said | None:
        passing = [name for name in self.treatments if self._passes(name)]
        if not passing or (not self.is_final and len(passing) < len(self.treatments)):
            return None
        winner = max(passing, key=self._gain)
        if not self.is_final:
            later = "; the objective is judged in the last phase" if self.design.objective else ""
            message = f"No guardrail is worse than its margin{later}."
            return _Said(Verdict.PASS, Reason.NON_INFERIOR, message)
        if self.design.objective is None:
            message = f"{winner} is no worse than control by more than the margin in any guardrail."
            return _Said(Verdict.PASS, Reason.NON_INFERIOR, message, winner)
        (objective,) = self._of(winner, Role.OBJECTIVE)
        beside = ", and no guardrail is worse than its margin" if self.design.guardrails else ""
        message = f"{winner} is better than control{beside}. {objective.message}"
        return _Said(Verdict.PASS, Reason.SUPERIOR, message, winner)

    def _passes(self, name: str) -> bool:
        guardrails = self._of(name, Role.GUARDRAIL)
        if not self.is_final and not guardrails:
            return False
        wanted = self._of(name, Role.OBJECTIVE) if self.is_final else ()
        return all(one.finding is Finding.NON_INFERIOR for one in guardrails) and all(
            one.finding is Finding.SUPERIOR for one in wanted
        )

    def _gain(self, name: str) -> float:
        for one in self._of(name, Role.OBJECTIVE):
            if one.judged is not None:
                return -one.judged.estimate if one.better is Better.LOWER else one.judged.estimate
        return 0.0

    def _failed(self) -> _Said | None:
        """Say that no treatment can pass any more."""
        if not self.is_final or self.design.objective is None:
            return None
        objectives = [one for name in self.treatments for one in self._of(name, Role.OBJECTIVE)]
        hopeless = {Finding.HARMFUL: Reason.HARMFUL, Finding.NOT_WORTHWHILE: Reason.NO_WORTHWHILE_EFFECT}
        if not objectives or any(one.finding not in hopeless for one in objectives):
            return None
        worst = all(one.finding is Finding.HARMFUL for one in objectives)
        reason = Reason.HARMFUL if worst else Reason.NO_WORTHWHILE_EFFECT
        return _Said(Verdict.FAIL, reason, " ".join(f"{one.treatment}: {one.message}" for one in objectives))

    def _undecided(self) -> _Said:
        open_ones = [one for one in self.judged if self._counts(one)]
        allowed = self.design.maximum_duration_s
        if self.is_final and allowed is not None and self.elapsed_s >= allowed:
            message = "The maximum duration is over and the evidence does not decide; this is no proof of no effect. "
            told = message + " ".join(one.message for one in open_ones)
            return _Said(Verdict.INSUFFICIENT, Reason.HORIZON_REACHED, told)
        if not open_ones:
            message = (
                "Nothing is judged in this phase: there are no guardrails, and the objective waits for the last one."
            )
            return _Said(Verdict.INSUFFICIENT, Reason.NOT_YET_MATURE, message)
        if waiting := [one for one in open_ones if one.finding is Finding.NO_DATA]:
            names = ", ".join(dict.fromkeys(one.metric for one in waiting))
            message = f"Nothing of {names} is old enough to be judged yet."
            return _Said(Verdict.INSUFFICIENT, Reason.NOT_YET_MATURE, message)
        return _Said(Verdict.INSUFFICIENT, Reason.TOO_FEW_EFFECTIVE_UNITS, " ".join(one.message for one in open_ones))

    def _counts(self, one: MetricReport) -> bool:
        """Return whether a metric keeps the phase from passing."""
        if one.role is Role.OBJECTIVE:
            return self.is_final and one.finding is not Finding.SUPERIOR
        return one.role is Role.GUARDRAIL and one.finding is not Finding.NON_INFERIOR

    def _of(self, treatment: str, role: Role) -> tuple[MetricReport, ...]:
        return tuple(one for one in self.judged if one.treatment == treatment and one.role is role)

    @cached_property
    def sample_ratio(self) -> Check:
        """Whether units are in the planned shares, over all phases until this one."""
        steps = [
            (
                [seen.arms.get(arm, ArmEvidence()).first_exposures for arm in self.design.arms],
                list(self.design.shares(seen.number).values()),
            )
            for seen in self.evidence.phases
            if seen.number <= self.phase.number
        ]
        return _check(float(sample_ratio.log_e_of_steps(steps)), alpha=sample_ratio.ALPHA)

    @cached_property
    def label_coverage(self) -> Check | None:
        """Whether outcomes are missing alike in all arms of this phase."""
        arms = [self.seen(name) for name in (self.design.control, *self.treatments)]
        if not self._has_outcomes or not any(arm.matured_units for arm in arms):
            return None
        control, *others = ((arm.coverage or Sums()).moments for arm in arms)
        log_e = [float(label_coverage.log_e_of_requests(control, one)) - math.log(len(others)) for one in others]
        if not all(label_coverage.can_tell(control, one) for one in others):
            units = (Trials(arm.matured_units, float(min(arm.labelled_units, arm.matured_units))) for arm in arms)
            log_e.append(float(label_coverage.log_e_of_units(tuple(units))))
        return _check(max(log_e, default=0.0), alpha=label_coverage.ALPHA / 2)

    def _arm(self, name: str) -> ArmReport:
        seen = self.seen(name)
        exposed = sum(self.seen(arm).first_exposures for arm in self.design.arms)
        return ArmReport(
            variant=name,
            units=seen.units,
            first_exposures=seen.first_exposures,
            share=seen.first_exposures / exposed if exposed else 0.0,
            target=self.shares[name],
            requests=seen.requests,
            requests_per_unit=seen.requests / seen.units if seen.units else 0.0,
            matured_units=seen.matured_units,
            labelled_units=seen.labelled_units,
            label_coverage=seen.labelled_units / seen.matured_units if seen.matured_units else None,
            matured_requests=seen.matured_requests,
            labelled_requests=seen.labelled_requests,
            pending_requests=seen.pending_requests,
            missing_requests=max(seen.matured_requests - seen.labelled_requests, 0),
            errors=seen.errors,
            failures=dict(seen.failures),
            left_out=dict(seen.left_out),
        )

    @cached_property
    def elapsed_s(self) -> float:
        """Of this phase, whether or not every arm was in traffic: when one was not, servers and ledger cannot tell."""
        end = self.now_us if self.phase.ended_us is None else min(self.phase.ended_us, self.now_us)
        return max(end - self.phase.started_us, 0) / 1e6

    def _plan(self) -> Plan:
        seen = sum(self.seen(arm).units for arm in self.design.arms)
        wanted = [self._planned_units(one) for one in self.judged if one.role is Role.OBJECTIVE]
        planned = None if not wanted or None in wanted else max(one for one in wanted if one is not None)
        planned_s = None
        if planned is not None and seen and self.elapsed_s:
            planned_s = self.elapsed_s * planned / seen + self.design.outcome_window_s
        return Plan(
            planned_units=planned,
            seen_units=seen,
            elapsed_s=self.elapsed_s,
            planned_s=planned_s,
            maximum_s=self.design.maximum_duration_s,
        )

    def _planned_units(self, one: MetricReport) -> int | None:
        """Return the units of all arms that come while one pair of arms gets those it needs."""
        both = self.shares[self.design.control] + self.shares[one.treatment]
        return None if one.planned_units is None or both <= 0 else math.ceil(one.planned_units / both)


def _check(log_e: float, *, alpha: float) -> Check:
    alarm = -math.log(alpha)
    return Check(
        log_e=bounds.finite(log_e), log_alarm=alarm, is_broken=log_e >= alarm, p_value=float(bounds.p_value(log_e))
    )
