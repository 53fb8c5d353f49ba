"""The rollout, as a state machine: (desired, observed, record, analysis, now) -> record. Pure.

``Pending -> Deploying -> Ramping(step) -> Deciding -> Promoting | RollingBack -> Stable``. Under Manual the weights
stand in the spec and nothing moves by itself; under Canary the candidate is a new revision of the control, under
Experiment the candidates are the treatments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from fairlead import BUCKETS
from fairlead_operator.api.conditions import Reason
from fairlead_operator.core.desired import Desired, Revision
from fairlead_operator.core.observed import Observed
from fairlead_operator.core.record import Decision, Gaps, Past, Phase, Record, Run, State

MOST_GAPS = 3
"""Gaps in one step that a comparison bears."""
_GAP_SHARE = 0.05
_GAP_FLOOR_S = 60.0
"""Time out of traffic that never fails a step, however short it is."""
_MOST_DECIDED = 100


class Verdict(StrEnum):
    """What an analysis says."""

    PASS = "Pass"  # noqa: S105 -- a verdict
    FAIL = "Fail"
    INSUFFICIENT = "Insufficient"
    NO_DATA = "NoData"
    INVALID = "Invalid"


@dataclass(frozen=True, slots=True)
class Analysis:
    """What the evidence says about the run in force."""

    verdict: Verdict
    reason: str
    """CamelCase, from the analysis' own closed list."""
    winner: str | None = None
    """Treatment that passed."""


NO_DATA = Analysis(Verdict.NO_DATA, "NoAnalysis")
"""What is known without an experiment engine."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What weights the rollout wants now; the plan gets there as readiness allows."""

    weights_bp: Mapping[str, int]
    """By arm, in the order of the slots."""
    ahead_bp: Mapping[str, int]
    """Weights that replicas are made ready for: these, or the next step's."""
    base: str | None
    """Revision that has what no arm has, where it is not simply the control's; Canary only."""
    winner: str | None
    """Variant that takes control's part."""
    observes: bool
    """Whether experiment headers may be sent."""
    capacity: int
    """Replicas that serve everything."""


def goal_of(desired: Desired, record: Record) -> Goal:
    """Return what the rollout wants now."""
    run, steps = _current(desired, record), desired.strategy.steps
    nothing = dict.fromkeys(desired.arms, 0)
    if desired.strategy.name == "Manual":
        weights = nothing if record.invalid == desired.salt else dict(steps[0].weights_bp)
        least = desired.scaling[desired.control].min_replicas
        return Goal(weights, weights, None, None, desired.experiment_id is not None, least)
    base = record.stable.name if desired.strategy.name == "Canary" and record.stable else None
    if run is None or record.invalid == desired.salt:
        return Goal(nothing, nothing, base, None, observes=False, capacity=record.capacity)
    winner = run.decision.winner if run.decision and run.decision.verdict == "Promote" else None
    if winner is not None and run.state in {State.PROMOTING, State.STABLE}:
        weights = {arm: steps[run.step].weights_bp[arm] if arm == winner else 0 for arm in desired.arms}
        return Goal(weights, weights, base, winner, observes=False, capacity=record.capacity)
    if not run.state.is_splitting:
        return Goal(nothing, _first(desired, run), base, None, observes=False, capacity=record.capacity)
    weights = dict(steps[run.step].weights_bp)
    ahead = dict(steps[min(run.step + run.preparing, len(steps) - 1)].weights_bp)
    observes = desired.experiment_id is not None
    return Goal(weights, ahead, base, None, observes, record.capacity)


def replicas_for(width_bp: int, capacity: int) -> int:
    """Return the replicas that a share of ``width_bp`` needs when ``capacity`` replicas serve everything."""
    return max(1, math.ceil(capacity * width_bp / BUCKETS))


def advance(desired: Desired, observed: Observed, record: Record, analysis: Analysis, now_s: float) -> Record:
    """Return what to remember from now on: the next state of the rollout, as far as the world allows.

    Args:
        desired: What is asked for.
        observed: The world.
        record: What was remembered.
        analysis: The evidence on the run in force; ``NO_DATA`` if there is none.
        now_s: Unix time, seconds.
    """
    if desired.paused:
        return record
    record = _with_stable(desired, observed, record, now_s)
    record = replace(record, kept=tuple(kept for kept in record.kept if kept.until_s > now_s))
    broken = observed.mismatched is not None or analysis.verdict is Verdict.INVALID
    if broken or record.invalid != desired.salt:
        record = replace(record, invalid=desired.salt if broken else None)
    record = _with_run(desired, observed, record, now_s)
    for _ in State:  # a run may pass several states at once
        if record.run is None:
            break
        moved = _Look(desired, observed, record, record.run, analysis, now_s).moved()
        if moved == record:
            break
        record = moved
    return replace(record, phase=_phase(desired, record))


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at a run: everything that its next state is a function of."""

    desired: Desired
    observed: Observed
    record: Record
    run: Run
    analysis: Analysis
    now_s: float

    def moved(self) -> Record:
        """Return the record after at most one transition."""
        asked = self.asked()
        if asked is not None:
            return asked
        transitions = {
            State.PENDING: self.from_pending,
            State.DEPLOYING: self.from_deploying,
            State.RAMPING: self.from_splitting,
            State.DECIDING: self.from_splitting,
            State.PROMOTING: self.from_promoting,
            State.ROLLING_BACK: self.from_rolling_back,
        }
        transition = transitions.get(self.run.state)
        return transition() if transition else self.record

    def from_pending(self) -> Record:
        """Wait for control to answer."""
        route = self.observed.route
        if route is None or not self.observed.answers(route.control.revision):
            return self.record
        capacity = max(self.record.capacity, self.observed.servers[route.control.revision].replicas)
        ready = replace(self, record=replace(self.record, capacity=capacity))
        if ready.was_good():
            return ready.decided("Promote", "LastGoodRevision", self.desired.control)
        return ready.holding(Run(self.run.id, State.DEPLOYING, self.run.started_s, self.now_s))

    def was_good(self) -> bool:
        """Return whether the candidate is a revision that was good and is still warm: it is gone back to at once."""
        wanted = self.candidate(self.desired.control)
        return self.is_canary and any(kept.revision.name == wanted for kept in self.record.kept)

    def from_deploying(self) -> Record:
        """Wait for the candidates, up to the progress deadline."""
        strategy = self.desired.strategy
        if self.have_capacity(strategy.steps[0].weights_bp):
            return self.holding(Run(self.run.id, State.RAMPING, self.run.started_s, self.now_s))
        if self.now_s - self.run.since_s > strategy.progress_deadline_s and strategy.rolls_back:
            return self.decided("Rollback", Reason.PROGRESS_DEADLINE_EXCEEDED)
        return self.record

    def have_capacity(self, weights_bp: Mapping[str, int]) -> bool:
        """Return whether every arm is complete and has the replicas that its weight needs."""
        return all(self.has_capacity(arm, width_bp) for arm, width_bp in weights_bp.items())

    def has_capacity(self, arm: str, width_bp: int) -> bool:
        """Return whether an arm is complete and has the replicas that its weight needs."""
        server = self.observed.server(self.candidate(arm))
        if server is None or not server.ready:
            return False
        needed = min(replicas_for(width_bp, self.record.capacity), self.desired.scaling[arm].most)
        return width_bp == 0 or server.replicas >= needed

    def from_splitting(self) -> Record:
        """Look at the clock, the gaps and the evidence of a step."""
        clocked = replace(self, run=self.clocked())
        failed = clocked.failed()
        if failed is not None:
            return failed
        if self.run.state is State.DECIDING:
            return clocked.judged()
        return clocked.stepped()

    def clocked(self) -> Run:
        """Note when the step's weights came into force, and since when an arm is out of traffic."""
        weights = self.desired.strategy.steps[self.run.step].weights_bp
        whole = all(self.share(arm) == width for arm, width in weights.items())
        if not self.run.in_force:
            return replace(self.run, in_force=True, since_s=self.now_s) if whole else self.run
        return replace(self.run, gaps=self.run.gaps.noted(whole=whole, now_s=self.now_s))

    def stepped(self) -> Record:
        """Return the record after the step's time: the next step, or the time to decide."""
        run, steps = self.run, self.desired.strategy.steps
        hold_s, last = steps[run.step].hold_s, run.step == len(steps) - 1
        held = run.in_force and run.gaps.since_s is None
        if held and hold_s is not None:
            held = self.now_s - run.since_s - run.gaps.until(self.now_s) >= hold_s
        if not held or (hold_s is None and not last):
            return self.holding(run)
        if last:
            return self.holding(replace(run, state=State.DECIDING))
        if not self.have_capacity(steps[run.step + 1].weights_bp):
            return self.holding(replace(run, preparing=True))
        following = replace(run, step=run.step + 1, since_s=self.now_s, in_force=False, preparing=False, gaps=Gaps())
        return self.holding(following)

    def judged(self) -> Record:
        """Return the record after a look at the evidence: under Canary, readiness at every step is the evidence."""
        whole = self.run.in_force and self.run.gaps.since_s is None
        if not self.desired.strategy.promotes or not whole:
            return self.holding(self.run)
        if self.is_canary:
            return self.decided("Promote", "StepsCompleted", self.desired.control)
        if self.analysis.verdict is Verdict.PASS and self.analysis.winner in self.desired.treatments:
            return self.decided("Promote", self.analysis.reason, self.analysis.winner)
        return self.holding(self.run)

    def failed(self) -> Record | None:
        """Return the record of a run that has failed; None if it has not, or somebody else is to decide."""
        run, strategy = self.run, self.desired.strategy
        if not strategy.rolls_back:
            return None
        if self.record.invalid == self.desired.salt:
            return self.decided("Rollback", Reason.ASSIGNMENT_INVALID)
        if self.analysis.verdict is Verdict.FAIL:
            return self.decided("Rollback", self.analysis.reason)
        lasted_s = max(self.now_s - run.since_s, strategy.steps[run.step].hold_s or 0.0)
        too_long = run.gaps.until(self.now_s) > max(_GAP_FLOOR_S, _GAP_SHARE * lasted_s)
        if run.gaps.count > MOST_GAPS or too_long:
            return self.decided("Rollback", Reason.GAPS_EXCEEDED)
        return None

    def from_promoting(self) -> Record:
        """Wait until the winner has every bucket."""
        winner = self.desired.revisions.get(self.run.decision.winner or "") if self.run.decision else None
        route = self.observed.route
        if winner is None or route is None or route.share_bp(winner.name) != BUCKETS:
            return self.record
        if not self.is_canary:
            return self.over(self.record, winner.name)
        return self.over(_succeeded_by(self.record, winner, self.desired, self.now_s), winner.name)

    def from_rolling_back(self) -> Record:
        """Wait until the candidates have nothing; keep them warm for a while."""
        stable = self.record.stable.name if self.record.stable else None
        candidates = [self.desired.revisions[arm] for arm in self.desired.arms]
        given_up = [revision for revision in candidates if revision.name != stable]
        if any(self.share(revision.variant) for revision in given_up):
            return self.record
        record = self.record
        for revision in given_up:
            record = record.keeping(revision, self.now_s + self.desired.strategy.keep_previous_s)
        record = replace(record, abandoned=tuple(revision.name for revision in given_up))
        return self.over(record, candidates[0].name)

    def over(self, record: Record, revision: str) -> Record:
        """Return ``record`` with the run done and remembered."""
        decision = self.run.decision
        if decision is None:
            return record
        past = Past(revision, self.run.started_s, self.now_s, decision.verdict, decision.reason)
        others = tuple(run_id for run_id in record.decided if run_id != self.run.id)
        return replace(
            record,
            run=replace(self.run, state=State.STABLE, since_s=self.now_s, preparing=False),
            decided=(self.run.id, *others)[:_MOST_DECIDED],
            history=(past, *record.history)[: self.desired.strategy.history_limit],
        )

    def asked(self) -> Record | None:
        """Return the record after somebody's decision; None if there is none that applies now."""
        run = self.run
        words = (self.desired.request or "").split()
        if not words or words[-1] != run.id:
            return None
        match words[:-1]:
            case ["promote", variant] if variant in self.desired.arms and run.state.is_splitting:
                ready = self.observed.ready(self.candidate(variant))
                return self.decided("Promote", "Requested", variant) if ready else None
            case ["abort"] if run.state not in {State.STABLE, State.ROLLING_BACK}:
                return self.decided("Rollback", "Requested")
            case ["abort"] if self.may_go_back():
                return self.gone_back()
            case _:
                return None

    def may_go_back(self) -> bool:
        """Return whether a promotion can be undone: what it replaced is still warm."""
        decision = self.run.decision
        if decision is None or decision.verdict != "Promote" or self.run.state is not State.STABLE:
            return False
        if self.is_canary:
            return bool(self.record.kept) and self.observed.answers(self.record.kept[0].revision.name)
        return self.observed.answers(self.candidate(self.desired.control))

    def gone_back(self) -> Record:
        """Return the record of a promotion that is undone."""
        if not self.is_canary:
            return self.decided("Rollback", "Requested")
        before = _succeeded_by(self.record, self.record.kept[0].revision, self.desired, self.now_s)
        return replace(self, record=before).decided("Rollback", "Requested")

    def decided(self, verdict: str, reason: str, winner: str | None = None) -> Record:
        """Return the record of a run that is decided."""
        state = State.PROMOTING if verdict == "Promote" else State.ROLLING_BACK
        decision = Decision(verdict, str(reason), self.now_s, winner)
        return self.holding(replace(self.run, state=state, decision=decision, since_s=self.now_s, preparing=False))

    def holding(self, run: Run) -> Record:
        """Return the record with ``run`` in it."""
        return replace(self.record, run=run)

    def candidate(self, variant: str) -> str:
        """Return the revision wanted for ``variant``."""
        return self.desired.revisions[variant].name

    def share(self, arm: str) -> int:
        """Return what an arm has in the route, basis points."""
        if self.observed.route is None:
            return 0
        if self.is_canary:
            return self.observed.route.share_bp(self.candidate(arm))
        return self.observed.route.weight_bp(arm)

    @property
    def is_canary(self) -> bool:
        """Whether the arms are revisions of one variant."""
        return self.desired.strategy.name == "Canary"


def _current(desired: Desired, record: Record) -> Run | None:
    """Return the run if it is the one that ``desired`` speaks of."""
    return record.run if record.run is not None and record.run.id == _run_id(desired) else None


def _run_id(desired: Desired) -> str | None:
    if desired.strategy.name == "Experiment":
        return desired.salt
    if desired.strategy.name == "Canary":
        return desired.revisions[desired.control].name
    return None


def _first(desired: Desired, run: Run) -> Mapping[str, int]:
    """Return the weights that candidates are made ready for before they have any."""
    deploying = run.state in {State.PENDING, State.DEPLOYING}
    return desired.strategy.steps[0].weights_bp if deploying else dict.fromkeys(desired.arms, 0)


def _with_stable(desired: Desired, observed: Observed, record: Record, now_s: float) -> Record:
    """Note which revision of control is in the route; the one before it is kept warm. Canary promotes it instead."""
    route = observed.route
    wanted = desired.revisions[desired.control]
    if route is None or (desired.strategy.name == "Canary" and record.stable is not None):
        return record
    if route.control.revision != wanted.name or record.stable == wanted or not observed.ready(wanted.name):
        return record
    return _succeeded_by(record, wanted, desired, now_s)


def _succeeded_by(record: Record, revision: Revision, desired: Desired, now_s: float) -> Record:
    before = record.stable
    if before is not None and before.name != revision.name:
        record = record.keeping(before, now_s + desired.strategy.keep_previous_s)
    kept = tuple(kept for kept in record.kept if kept.revision.name != revision.name)
    return replace(record, stable=revision, kept=kept)


def _with_run(desired: Desired, observed: Observed, record: Record, now_s: float) -> Record:
    """Return the record with the run that ``desired`` asks for, if it asks for one."""
    run_id = _run_id(desired)
    if record.run is not None and record.run.id == run_id:
        return record
    none = replace(record, run=None, abandoned=())
    if run_id is None:
        return none
    if desired.strategy.name == "Canary" and (record.stable is None or record.stable.name == run_id):
        return none
    if desired.strategy.name == "Experiment" and run_id in record.decided:
        return none
    base = observed.server(observed.route.control.revision) if observed.route else None
    run = Run(run_id, State.PENDING, started_s=now_s, since_s=now_s)
    return replace(none, run=run, capacity=max(1, base.replicas if base else 1))


def _phase(desired: Desired, record: Record) -> Phase:
    """Return the phase in force: the planned step, or under Manual one more whenever weights change."""
    goal = goal_of(desired, record)
    run = _current(desired, record)
    if run is not None:
        return Phase(desired.salt, run.step, goal.weights_bp)
    before = record.phase
    if before is None or before.salt != desired.salt:
        return Phase(desired.salt, 0, goal.weights_bp)
    changed = dict(before.weights_bp) != dict(goal.weights_bp)
    return Phase(desired.salt, before.number + changed, goal.weights_bp)
