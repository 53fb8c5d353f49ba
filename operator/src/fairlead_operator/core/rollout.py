"""The rollout, as a state machine: (desired, observed, record, analysis, now) -> record. Pure.

``Pending -> Deploying -> Ramping(step) -> Deciding -> Promoting | RollingBack -> Stable``. Under Manual the weights
stand in the spec and nothing moves by itself; under Canary the candidate is a new revision of the control, under
Experiment the candidates are the treatments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from fairlead import BUCKETS
from fairlead.experiment.report import Reason as Why
from fairlead.experiment.report import Verdict
from fairlead_operator.api.conditions import Reason
from fairlead_operator.core.canary import candidate_of, compared, comparison_of
from fairlead_operator.core.desired import Desired, Revision, Step
from fairlead_operator.core.ending import ended
from fairlead_operator.core.goal import (
    Goal,
    current_run,
    goal_of,
    is_registered,
    replicas_for,
    step_of,
    winner_of,
)
from fairlead_operator.core.observed import Observed
from fairlead_operator.core.record import Comparison, Decision, Gaps, Past, Phase, Record, Run, State

__all__ = ["MOST_GAPS", "NO_DATA", "Analysis", "Goal", "Verdict", "advance", "bearable_s", "goal_of", "replicas_for"]

MOST_GAPS = 3
"""Gaps in one step that a comparison bears."""
_GAP_SHARE = 0.05
_GAP_FLOOR_S = 60.0
"""Time out of traffic that never fails a step, however short it is."""
_MOST_DECIDED = 100


@dataclass(frozen=True, slots=True)
class Analysis:
    """What the evidence says about the run in force."""

    verdict: Verdict
    reason: str
    """CamelCase, from the analysis' own closed list."""
    winner: str | None = None
    """Treatment that passed."""
    phase: int | None = None
    """Step that it speaks of."""
    holds: bool = False
    """Whether the step is not to be left: the comparison is broken, or nobody sees what would come of more weight."""

    @property
    def fails(self) -> bool:
        """Whether the run has failed by it: the evidence is against the treatments, or its time is over."""
        is_over = self.verdict is Verdict.INSUFFICIENT and self.reason == Why.HORIZON_REACHED
        return is_over or self.verdict is Verdict.FAIL


NO_DATA = Analysis(Verdict.NO_DATA, "NoAnalysis")
"""What is known where nothing is compared."""


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
        return record if record.paused_s is not None else replace(record, paused_s=now_s)
    if record.paused_s is not None:  # a pause is nobody's time
        record = replace(_without_pause(record, record.paused_s, now_s), paused_s=None)
    record = _with_stable(desired, observed, record, now_s)
    record = replace(record, kept=tuple(kept for kept in record.kept if kept.until_s > now_s))
    record = _with_validity(compared(desired, record), record, broken=observed.mismatched is not None)
    record = _with_capacity(observed, _with_run(desired, observed, record, now_s))
    desired = compared(desired, record)
    for _ in State:  # a run may pass several states at once
        if record.run is None:
            break
        moved = _Look(desired, observed, record, record.run, analysis, now_s).moved()
        if moved == record:
            break
        record = moved
    record = ended(desired, record, now_s)
    return replace(record, phase=_phase(desired, record), in_force=desired.fingerprint)


def _without_pause(record: Record, since_s: float, now_s: float) -> Record:
    """Return ``record`` as if the pause since ``since_s`` had not been; however often this is looked at."""
    if record.accounted_s == since_s:
        return record
    return replace(record.later(now_s - since_s), accounted_s=since_s)


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
        return ready.holding(replace(self.run, state=State.DEPLOYING, since_s=self.now_s))

    def was_good(self) -> bool:
        """Return whether the candidate is a revision that was good and is still warm: it is gone back to at once."""
        wanted = self.candidate(self.desired.control)
        return self.is_canary and any(kept.good and kept.revision.name == wanted for kept in self.record.kept)

    def from_deploying(self) -> Record:
        """Wait for the candidates, up to the progress deadline."""
        first, sized = self.desired.strategy.steps[0].weights_bp, self.sized()
        if sized.have_capacity(first) and not (is_registered(self.desired, self.record) and self.is_informed(first)):
            return sized.record  # nobody is exposed before all of it is counted; that is no candidate's fault
        if sized.have_capacity(first):
            return sized.holding(replace(self.run, state=State.RAMPING, since_s=self.now_s))
        if sized.record.capacity > self.record.capacity:  # more is asked of them than was: it may take as long again
            return sized.holding(replace(self.run, since_s=self.now_s))
        if self.desired.strategy.rolls_back and self.is_late(first):
            return self.decided("Rollback", Reason.PROGRESS_DEADLINE_EXCEEDED)
        return self.record

    def sized(self) -> _Look:
        """Return this look with control as large as it has come to be: who gains from it has to bear as much."""
        return replace(self, record=_sized(self.observed, self.record))

    def have_capacity(self, weights_bp: Mapping[str, int]) -> bool:
        """Return whether every arm may gain weight, and has the replicas that its weight needs."""
        return all(
            self.has_capacity(arm, width_bp) and (width_bp == 0 or self.observed.may_gain(self.candidate(arm)))
            for arm, width_bp in weights_bp.items()
        )

    def has_capacity(self, arm: str, width_bp: int) -> bool:
        """Return whether an arm is complete and has the replicas that its weight needs."""
        server = self.observed.server(self.candidate(arm))
        if server is None or not server.ready:
            return False
        needed = min(replicas_for(width_bp, self.record.capacity), self.desired.scaling[arm].most)
        return width_bp == 0 or server.replicas >= needed

    def is_informed(self, weights_bp: Mapping[str, int]) -> bool:
        """Return whether every arm's servers can count exposures; where none are to be counted, so it is."""
        if self.desired.experiment_id is None or self.observed.route is None:
            return True
        arms = (self.candidate(arm) for arm, width_bp in weights_bp.items() if width_bp)
        return self.observed.informed((self.observed.route.control.revision, *arms))

    def is_late(self, weights_bp: Mapping[str, int]) -> bool:
        """Return whether an arm lacks what its weight needs, for longer than the progress deadline."""
        return any(time_s < self.now_s for time_s in self.deadlines(weights_bp))

    def deadlines(self, weights_bp: Mapping[str, int]) -> Iterator[float]:
        """Yield until when each arm that lacks something is waited for; one that cannot even be started is not late."""
        for arm, width_bp in weights_bp.items():
            server = self.observed.server(self.candidate(arm))
            if server is not None and not self.has_capacity(arm, width_bp):
                yield max(self.run.since_s, server.created_s or 0.0) + self.desired.strategy.progress_deadline_s

    def from_splitting(self) -> Record:
        """Look at the clock, the gaps and the evidence of a step."""
        clocked = replace(self, run=self.clocked())
        failure = clocked.failure()
        if failure is not None:
            return clocked.failed(failure)
        if clocked.has_failed:
            return clocked.holding(clocked.run)
        return clocked.judged() if self.run.state is State.DECIDING and self.is_last else clocked.stepped()

    def clocked(self) -> Run:
        """Note when the step's weights came into force, and since when an arm is out of traffic."""
        run, now_s = self.run, self.now_s
        if self.observed.route is None:  # nobody is in traffic; the step's time starts anew with the next route
            return replace(_anew(run, now_s), gaps=Gaps(run.gaps.count)) if run.in_force else run
        whole = all(self.is_in_traffic(arm, width) for arm, width in self.step.weights_bp.items())
        fair = whole and self.is_compared()
        if not run.in_force:
            return replace(run, in_force=True, since_s=now_s) if fair else run
        gaps = run.gaps.noted(whole=whole, now_s=now_s)
        return replace(run, gaps=gaps, away=run.away.noted(whole=fair or not whole, now_s=now_s))

    def is_in_traffic(self, arm: str, width_bp: int) -> bool:
        """Return whether an arm has the share that the step gives it, and answers."""
        if self.share(arm) != width_bp:
            return False
        route = self.observed.route
        named = self.candidate(arm) if self.is_canary or route is None else route.revision_of(arm)
        return width_bp == 0 or self.observed.answers(named)

    def is_compared(self) -> bool:
        """Return whether control answers, and an experiment's units are told of it."""
        route = self.observed.route
        if route is None or not self.observed.answers(route.control.revision):
            return False
        if self.desired.experiment_id is None:
            return True
        return route.observation is not None and route.observation.phase == self.run.step

    def stepped(self) -> Record:
        """Return the record after the step's time: the next step, or the time to decide."""
        run, hold_s = self.run, self.step.hold_s
        may_go_on = self.is_held() and not self.analysis.holds
        held = may_go_on and (hold_s is None or self.now_s >= self.held_until_s(hold_s))
        if self.is_last:
            return self.holding(replace(run, state=State.DECIDING if held else run.state))
        run = replace(run, state=State.RAMPING)
        if not held or hold_s is None:
            return self.holding(run)
        sized = self.sized()
        if not sized.have_capacity(self.desired.strategy.steps[run.step + 1].weights_bp):
            return sized.holding(replace(run, preparing=True))
        following = replace(run, step=run.step + 1, preparing=False)
        return sized.holding(_anew(following, self.now_s))

    def is_held(self) -> bool:
        """Return whether the step's weights are in force at present, with every arm in traffic."""
        return self.run.in_force and not self.run.gaps.is_open and not self.run.away.is_open

    def held_until_s(self, hold_s: float) -> float:
        """Return when a step will have lasted ``hold_s``, not counting what was nobody's time, Unix time."""
        return self.run.since_s + hold_s + self.run.gaps.until(self.now_s) + self.run.away.until(self.now_s)

    def judged(self) -> Record:
        """Return the record after a look at the evidence."""
        success = self.success() if self.is_held() else None
        if success is None:
            return self.holding(self.run)
        reason, winner = success
        if self.desired.strategy.promotes:
            return self.decided("Promote", reason, winner)
        if self.run.decision is not None:
            return self.holding(self.run)
        return self.holding(replace(self.run, decision=self.decision("Hold", reason, winner)))

    def success(self) -> tuple[str, str] | None:
        """Return why and who has won; None if nothing says so. Under Canary steps that were held are the evidence."""
        if self.is_canary:
            is_open = self.step.hold_s is None or self.analysis.holds
            return None if is_open else ("StepsCompleted", self.desired.control)
        if self.analysis.verdict is Verdict.PASS and self.analysis.winner in self.desired.treatments:
            return self.analysis.reason, self.analysis.winner
        return None

    def failure(self) -> str | None:
        """Return why the run has failed; None if it has not."""
        run = self.run
        if self.record.invalid == self.desired.salt:
            return Reason.ASSIGNMENT_INVALID
        if self.analysis.fails:
            return self.analysis.reason
        if not run.in_force:
            return Reason.PROGRESS_DEADLINE_EXCEEDED if self.is_late(self.step.weights_bp) else None
        if run.gaps.count > MOST_GAPS or run.gaps.until(self.now_s) > bearable_s(run, self.step, self.now_s):
            return Reason.GAPS_EXCEEDED
        return None

    def failed(self, reason: str) -> Record:
        """Return the record of a run that has failed: rolled back, or kept as it is until somebody decides."""
        if self.desired.strategy.rolls_back:
            return self.decided("Rollback", reason)
        if self.has_failed:
            return self.holding(self.run)
        decision = self.decision("Hold", reason)
        return self.holding(replace(self.run, state=State.DECIDING, decision=decision, preparing=False))

    @property
    def has_failed(self) -> bool:
        """Whether it has failed, and somebody is to decide."""
        return self.run.decision is not None and self.run.decision.winner is None

    def from_promoting(self) -> Record:
        """Wait until the winner has every bucket; what it replaced stays warm for a while."""
        winner, route = winner_of(self.desired, self.run), self.observed.route
        if winner is None or route is None or route.share_bp(self.candidate(winner)) != BUCKETS:
            return self.record
        revision = self.desired.revisions[winner]
        record = self.record
        if not self.is_canary:
            record = replace(record, stable=self.desired.revisions[self.desired.control])
        return self.over(_succeeded_by(record, revision, self.desired, self.now_s), revision.name)

    def from_rolling_back(self) -> Record:
        """Wait until the candidates have nothing; keep them warm for a while."""
        candidates = [self.desired.revisions[arm] for arm in self.desired.arms]
        if any(self.share(revision.variant) for revision in candidates):
            return self.record
        record = self.record
        for revision in candidates:
            record = record.keeping(revision, self.now_s + self.desired.strategy.keep_previous_s, good=False)
        record = replace(record, abandoned=tuple(revision.name for revision in candidates))
        return self.over(record, candidates[0].name)

    def over(self, record: Record, revision: str) -> Record:
        """Return ``record`` with the run done and remembered."""
        run = replace(self.run, state=State.STABLE, since_s=self.now_s, preparing=False)
        return _remembering(replace(record, run=run), run, revision, self.desired, self.now_s)

    def asked(self) -> Record | None:
        """Return the record after somebody's decision; None if there is none that applies now."""
        run, request = self.run, self.desired.request
        if run.ignores is not None:
            return self.holding(replace(run, ignores=None)) if request != run.ignores else None
        words = (request or "").split()
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
        if self.run.state is not State.STABLE or winner_of(self.desired, self.run) is None or not self.record.kept:
            return False
        before = self.record.kept[0].revision
        return before.variant == self.desired.control and self.observed.answers(before.name)

    def gone_back(self) -> Record:
        """Return the record of a promotion that is undone."""
        record = self.record
        if self.is_canary:
            record = _succeeded_by(record, record.kept[0].revision, self.desired, self.now_s)
        return replace(self, record=record).decided("Rollback", "Requested")

    def decided(self, verdict: str, reason: str, winner: str | None = None) -> Record:
        """Return the record of a run that is decided."""
        state = State.PROMOTING if verdict == "Promote" else State.ROLLING_BACK
        decision = self.decision(verdict, reason, winner)
        arm = self.run.candidate if winner is not None and self.run.comparison is not None else winner
        record = self.record.telling(self.run.id, replace(decision, winner=arm))
        run = replace(self.run, state=state, decision=decision, since_s=self.now_s, preparing=False)
        return replace(record, run=run)

    def decision(self, verdict: str, reason: str, winner: str | None = None) -> Decision:
        """Return a decision of now."""
        if reason != self.analysis.reason:
            return Decision(verdict, str(reason), self.now_s, winner, phase=self.run.step)
        phase = self.run.step if self.analysis.phase is None else self.analysis.phase
        said = self.analysis.verdict.value
        return Decision(verdict, str(reason), self.now_s, winner, analysis=said, phase=phase)

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
    def step(self) -> Step:
        """The step that the run is at."""
        return step_of(self.desired, self.run)

    @property
    def is_last(self) -> bool:
        """Whether no step is left."""
        return self.run.step >= len(self.desired.strategy.steps) - 1

    @property
    def is_canary(self) -> bool:
        """Whether the arms are revisions of one variant."""
        return self.desired.strategy.name == "Canary"


def bearable_s(run: Run, step: Step, now_s: float) -> float:
    """Return how long arms may be out of traffic in a step, seconds."""
    return max(_GAP_FLOOR_S, _GAP_SHARE * max(now_s - run.since_s, step.hold_s or 0.0))


def _with_stable(desired: Desired, observed: Observed, record: Record, now_s: float) -> Record:
    """Note which revision of control is in the route; the one before it is kept warm. Canary promotes it instead."""
    route = observed.route
    run = current_run(desired, record)
    reigning = winner_of(desired, run) if run is not None and run.is_over else None
    wanted = desired.revisions[reigning or desired.control]
    if route is None and record.stable is None and observed.ready(wanted.name):
        return replace(record, stable=wanted)  # it is about to get the first route
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


def _with_validity(desired: Desired, record: Record, *, broken: bool) -> Record:
    """Note whether the gateway breaks the assignment law; for an experiment it has then broken it for good."""
    known = record.invalid == desired.salt and desired.experiment_id is not None
    return replace(record, invalid=desired.salt if broken or known else None)


def _with_run(desired: Desired, observed: Observed, record: Record, now_s: float) -> Record:
    """Return the record with the run that ``desired`` asks for, if it asks for one."""
    current = current_run(desired, record)
    if current is not None:
        return replace(record, run=_edited(desired, record, current, now_s))
    none = replace(_superseded(desired, record, now_s), run=None, abandoned=())
    begun = _begun(desired, none, now_s)
    if begun is None:
        return none
    id_, comparison = begun
    base = observed.server(observed.route.control.revision) if observed.route else None
    run = Run(id_, State.PENDING, now_s, now_s, ignores=desired.request, comparison=comparison)
    return replace(none, run=run, capacity=max(1, base.replicas if base else 1))


def _begun(desired: Desired, record: Record, now_s: float) -> tuple[str, Comparison | None] | None:
    """Return the id of the run that begins now, and how it is compared if it is a canary; None if none begins."""
    if desired.strategy.name == "Experiment":
        return None if desired.salt in record.decided else (desired.salt, None)
    candidate = candidate_of(desired).name
    if desired.strategy.name != "Canary" or record.stable is None or record.stable.name == candidate:
        return None
    comparison = comparison_of(desired, record.stable, now_s, record.decided)
    return (candidate if comparison is None else comparison.design.salt), comparison


def _with_capacity(observed: Observed, record: Record) -> Record:
    """Note how large control is while somebody takes over from it."""
    is_taken_over = record.run is not None and record.run.state is State.PROMOTING
    return _sized(observed, record) if is_taken_over else record


def _sized(observed: Observed, record: Record) -> Record:
    """Return ``record`` with control's size, if that has grown."""
    control = observed.server(observed.route.control.revision) if observed.route else None
    return replace(record, capacity=max(record.capacity, control.replicas)) if control else record


def _edited(desired: Desired, record: Record, run: Run, now_s: float) -> Run:
    """Return ``run`` after an edit of its steps: one whose weights are others now is not in force yet."""
    step = min(run.step, len(desired.strategy.steps) - 1)
    weights, phase = desired.strategy.steps[step].weights_bp, record.phase
    same = phase is None or record.in_force == desired.fingerprint or dict(phase.weights_bp) == dict(weights)
    if step == run.step and (same or not run.state.is_splitting or not run.in_force):
        return run
    return _anew(replace(run, step=step), now_s)


def _anew(run: Run, now_s: float) -> Run:
    """Return ``run`` with the clock of its step not started yet."""
    return replace(run, in_force=False, since_s=now_s, gaps=Gaps(), away=Gaps())


def _superseded(desired: Desired, record: Record, now_s: float) -> Record:
    """Return the record after the spec has gone on to something else: a run that was under way is over with that."""
    run = record.run
    if run is None or run.state in {State.STABLE, State.PENDING, State.DEPLOYING}:
        return record
    final = run.decision is not None and run.decision.verdict != "Hold"
    ended = Decision("Rollback", "Superseded", now_s, phase=run.step)
    decision = run.decision if final and run.decision else ended
    run = replace(run, decision=decision)
    record = record if final else record.telling(run.id, decision)
    revision = run.id.rpartition("/")[2] if run.comparison is None else run.candidate
    return _remembering(record, run, revision, desired, now_s)


def _remembering(record: Record, run: Run, revision: str, desired: Desired, now_s: float) -> Record:
    """Return the record with ``run`` in its history."""
    if run.decision is None:
        return record
    past = Past(revision, run.started_s, now_s, run.decision.verdict, run.decision.reason)
    others = tuple(other for other in record.decided if other != run.id)
    history = (past, *record.history)[: desired.strategy.history_limit]
    return replace(record, decided=(run.id, *others)[:_MOST_DECIDED], history=history)


def _phase(desired: Desired, record: Record) -> Phase:
    """Return the phase in force: the planned step, or under Manual one more whenever weights change."""
    goal = goal_of(desired, record)
    run = current_run(desired, record)
    if run is not None:
        return Phase(desired.salt, run.step, goal.weights_bp)
    before = record.phase
    if before is None or before.salt != desired.salt:
        return Phase(desired.salt, 0, goal.weights_bp)
    changed = dict(before.weights_bp) != dict(goal.weights_bp)
    return Phase(desired.salt, before.number + changed, goal.weights_bp)
