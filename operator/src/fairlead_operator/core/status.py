"""What a deployment says about itself: its status, from what is desired, observed and remembered. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from fairlead.experiment.report import Reason as Why
from fairlead.experiment.report import Report, Verdict
from fairlead_operator.api.conditions import Condition, ConditionType, Reason, stamped
from fairlead_operator.api.v1alpha1 import (
    Decision,
    ExperimentStatus,
    HistoryEntry,
    ModelDeployment,
    RolloutStatus,
    Status,
    Url,
    VariantFailure,
    VariantStatus,
)
from fairlead_operator.core.canary import compared
from fairlead_operator.core.desired import Desired, Revision
from fairlead_operator.core.evidence import NO_EVIDENCE, Evidence
from fairlead_operator.core.goal import is_registered
from fairlead_operator.core.judged import told_of
from fairlead_operator.core.observed import Health, Observed, Server
from fairlead_operator.core.record import Record, State
from fairlead_operator.core.rollout import goal_of

_REASONS = {
    Health.STARTING: Reason.STARTING,
    Health.REDUCED: Reason.REDUCED,
    Health.UNREADY: Reason.NOT_READY,
    Health.CRASHED: Reason.CRASHED,
    Health.REFUSED: Reason.MODEL_REFUSED,
    Health.BLOCKED: Reason.PODS_BLOCKED,
}
_ENDS_COMPARISON = frozenset(
    {
        *(Reason.ASSIGNMENT_INVALID, Reason.SAMPLE_RATIO, Reason.LABEL_COVERAGE),
        *(Reason.DESIGN_CONFLICT, Reason.METRIC_UNFIT, Reason.LEDGER_MISSING),
    }
)
"""Why an experiment is not what was asked for until somebody acts."""
_ABOUT_FEATURES = frozenset({Reason.AS_SPECIFIED, Reason.FEATURES_CHANGED})
_UNDER_WAY = {
    State.PENDING: (Reason.STARTING, "waiting for control to answer"),
    State.DEPLOYING: (Reason.STARTING, "waiting for {awaited}"),
    State.RAMPING: (Reason.RAMPING, "step {step} of {steps}: {weights}"),
    State.DECIDING: (Reason.DECIDING, "step {step} of {steps}: {weights}; {next}"),
    State.PROMOTING: (Reason.PROMOTING, "the winner takes over: {weights}"),
    State.ROLLING_BACK: (Reason.ROLLING_BACK, "control takes everything back: {weights}"),
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the status tells that is neither desired nor observed by the core."""

    url: Url | None
    now_s: float
    """Unix time, seconds."""
    simulated_time: str | None = None
    gateway_problem: str | None = None
    """Why the last route did not get through; None if it did."""
    edit_problem: str | None = None
    """Why the manifest as it stands is not in force; None if it is."""
    evidence: Evidence = NO_EVIDENCE
    """What the ledger has said of the experiment."""


def status_of(
    deployment: ModelDeployment, desired: Desired, observed: Observed, record: Record, around: Surroundings
) -> Status:
    """Return the status of ``deployment``; its former status gives conditions their transition times."""
    before = deployment.status.conditions if deployment.status else ()
    desired = compared(desired, record)
    look = _Look(desired, observed, record, around, deployment.status)
    conditions = tuple(look.conditions())
    return Status(
        observed_generation=desired.generation,
        url=around.url,
        conditions=stamped((_ready(conditions, desired), *conditions), before, iso(around.now_s)),
        variants=tuple(look.variant(name) for name in desired.revisions),
        rollout=look.rollout(),
        experiment=look.experiment(),
        history=tuple(
            HistoryEntry(
                revision=past.revision,
                started_at=iso(past.started_s),
                ended_at=iso(past.ended_s),
                verdict=past.verdict,
                reason=past.reason,
            )
            for past in record.history
        ),
        serving_release=deployment.spec.serving.release or record.release,
        simulated_time=around.simulated_time,
    )


def iso(unix_s: float) -> str:
    """Return a Unix time as ISO 8601 UTC, to milliseconds."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")


_Verdict = tuple[bool | None, Reason, str]


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at everything that a status tells."""

    desired: Desired
    observed: Observed
    record: Record
    around: Surroundings
    before: Status | None
    """What was told last."""

    def variant(self, name: str) -> VariantStatus:
        """Return how one variant is."""
        revision = self.desired.revisions[name]
        server = self.observed.server(revision.name)
        route = self.observed.route
        return VariantStatus(
            name=name,
            role=self.desired.roles.get(name, ""),
            revision=revision.name,
            serving=route.revision_of(name) if route else None,
            ready=server is not None and server.ready,
            replicas=server.replicas if server is not None and server.answers else 0,
            weight=route.weight_bp(name) / 100 if route else 0,
            model_digest=revision.model.digest,
            contract_digest=(server.contract_digest or self.contract_before(revision)) if server else None,
            restarts=server.restarts if server else 0,
            last_failure=VariantFailure(reason=server.failure.reason, message=server.failure.message)
            if server and server.failure
            else None,
        )

    def rollout(self) -> RolloutStatus:
        """Return where the rollout stands."""
        run, route, since_s = self.record.run, self.observed.route, self.record.paused_s
        decision = run.decision if run else None
        return RolloutStatus(
            state=self.record.state,
            stable=route.control.revision if route else None,
            candidate=",".join(revision.name for revision in self.candidates)[:63] or None,
            phase=self.record.phase.number if self.record.phase else 0,
            step=run.step if run else 0,
            step_started_at=iso(run.since_s) if run and run.in_force else None,
            weight=self.weights(self.desired.arms)[:64] or None,
            paused_at=iso(since_s) if self.desired.paused and since_s is not None else None,
            decision=Decision(
                verdict=decision.verdict,
                reason=decision.reason,
                variant=decision.winner,
                at=iso(decision.at_s),
                analysis=decision.analysis,
                record=decision.record.address if decision.record else None,
                record_digest=decision.record.digest if decision.record else None,
            )
            if decision
            else None,
            verdict=self.verdict(),
        )

    def verdict(self) -> str | None:
        """Return how the run was decided, or what the analysis says now."""
        run, report = self.record.run, self.report
        if run is not None and run.decision is not None:
            return f"{run.decision.verdict} ({run.decision.reason})"
        return f"{report.verdict} ({report.reason})" if report is not None else None

    @property
    def report(self) -> Report | None:
        """What the ledger last said of the phase in force."""
        run, phase = self.record.run, self.record.phase
        number = run.step if run is not None else phase.number if phase is not None else 0
        return self.around.evidence.reports.get(number) if self.desired.design is not None else None

    def experiment(self) -> ExperimentStatus | None:
        """Return the experiment in force, if the spec has one."""
        if self.desired.experiment_id is None:
            return None
        run, route, evidence = self.record.run, self.observed.route, self.around.evidence
        registered = self.record.registered
        judged = told_of(self.report) if self.report is not None else {}
        return ExperimentStatus(
            id=self.desired.experiment_id,
            salt=self.desired.salt,
            started_at=iso(run.started_s) if run else None,
            observing=bool(route and route.observation),
            design=registered.digest if registered and registered.salt == self.desired.salt else None,
            page=evidence.page if self.desired.design is not None else None,
            **judged,
        )

    @property
    def candidates(self) -> list[Revision]:
        """Revisions that are being rolled out."""
        if self.desired.strategy.name == "Canary" and (self.record.run is None or self.record.run.is_over):
            return []
        return [self.desired.revisions[arm] for arm in self.desired.arms]

    def weights(self, names: Iterable[str]) -> str:
        """Return the shares in force, such as ``10`` or ``a 10, b 25``, per cent."""
        route, names = self.observed.route, list(names)
        if route is None:
            return ""
        canary = self.desired.strategy.name == "Canary"
        shares = {
            name: (route.share_bp(self.desired.revisions[name].name) if canary else route.weight_bp(name)) / 100
            for name in names
        }
        if canary and not self.candidates:
            return ""
        return ", ".join(f"{name} {share:g}" if len(names) > 1 else f"{share:g}" for name, share in shares.items())

    def conditions(self) -> Iterator[Condition]:
        """Yield every condition but the sum of them."""
        for kind, verdict in (
            (ConditionType.SERVABLE, self.servable()),
            (ConditionType.VARIANTS_READY, self.variants_ready()),
            (ConditionType.FEATURES_READY, self.features_ready()),
            (ConditionType.ROUTING_READY, self.routing_ready()),
            (ConditionType.EXPERIMENT_HEALTHY, self.experiment_healthy()),
            (ConditionType.PROGRESSING, self.progressing()),
        ):
            problem = next((p for p in self.observed.problems if p.condition is kind), None)
            holds, reason, message = (False, problem.reason, problem.message) if problem else verdict
            yield Condition(
                type=kind,
                status="Unknown" if holds is None else "True" if holds else "False",
                reason=reason,
                message=message[:4096],
                observed_generation=self.desired.generation,
            )

    def servable(self) -> _Verdict:
        """Return whether something answers."""
        route = self.observed.route
        if route is None:
            return False, Reason.STARTING, "no variant was ready yet"
        ready = [d.variant for d in route.split if d.width_bp and self.observed.answers(d.revision)]
        if ready:
            return True, Reason.AS_SPECIFIED, f"answering: {', '.join(dict.fromkeys(ready))}"
        return False, Reason.NOT_READY, "no variant in the route has a ready server; see the variants' lastFailure"

    def variants_ready(self) -> _Verdict:
        """Return whether every variant's wanted revision is ready."""
        for name, revision in self.desired.revisions.items():
            server = self.observed.server(revision.name)
            if revision.name in self.record.abandoned or (server is not None and server.ready):
                continue
            return False, self.reason(server), f"{name}: {self.explanation(revision.name, server)}"
        return True, Reason.AS_SPECIFIED, f"{len(self.desired.revisions)} of {len(self.desired.revisions)} are ready"

    def contract_before(self, revision: Revision) -> str | None:
        """Return the contract that a revision's server was known to have: it may only not have been asked again yet."""
        told = self.before.variants if self.before else ()
        return next((one.contract_digest for one in told if one.revision == revision.name), None)

    def features_before(self) -> _Verdict | None:
        """Return what was told of the features of these very revisions before; None if nothing was."""
        if self.before is None or {one.revision for one in self.before.variants} != {
            revision.name for revision in self.desired.revisions.values()
        }:
            return None
        for one in self.before.conditions:
            if one.type is ConditionType.FEATURES_READY and one.reason in _ABOUT_FEATURES:
                return one.status == "True", one.reason, one.message
        return None

    def features_ready(self) -> _Verdict:
        """Return whether the registry's features are those that the models were trained with."""
        known, answering = 0, 0
        for name, revision in self.desired.revisions.items():
            server = self.observed.server(revision.name)
            if server is not None and server.features is not None:
                return False, Reason.FEATURES_CHANGED, f"{name}: {server.features}"
            known += server is not None and server.contract_digest is not None
            answering += server is not None and server.answers
        # A process that has just been started has not asked every server yet.
        told = self.features_before() if known < answering else None
        if told is not None:
            return told
        if known:
            return True, Reason.AS_SPECIFIED, "the registry's features are those that the models were trained with"
        return None, Reason.FEATURES_UNKNOWN, "no server has reported on its features yet"

    def routing_ready(self) -> _Verdict:
        """Return whether the gateway routes as wanted."""
        route = self.observed.route
        if self.around.gateway_problem is not None:
            return False, Reason.GATEWAY_REFUSED, self.around.gateway_problem
        if self.record.invalid == self.desired.salt:
            why = self.observed.mismatched or "units did not land where the assignment law says"
            return False, Reason.ASSIGNMENT_INVALID, f"{why}; weight is withdrawn until {self.something_new}"
        if route is None:
            return False, Reason.STARTING, "no route yet: control is not ready"
        if not self.observed.answers(route.control.revision):
            message = f"{route.control.variant} has no ready server and keeps its share: nothing is better than control"
            return False, Reason.DEGRADED, message
        missing = self.missing_weight()
        if missing is not None:
            return missing
        names = dict.fromkeys((route.control.variant, self.desired.control, *self.desired.treatments))
        shares = ", ".join(f"{name} {route.weight_bp(name) / 100:g}" for name in names)
        return True, Reason.AS_SPECIFIED, f"weights in per cent: {shares}"

    @property
    def something_new(self) -> str:
        """What draws all units anew."""
        return "experiment.id is a new one" if self.desired.canary is None else "there is a new revision"

    def missing_weight(self) -> _Verdict | None:
        """Return which arm has less than the rollout wants, and why; None if all have what is wanted."""
        goal, route = goal_of(self.desired, self.record), self.observed.route
        for arm, wanted in goal.weights_bp.items():
            revision = self.desired.revisions[arm].name
            canary = self.desired.strategy.name == "Canary"
            has = 0 if route is None else route.share_bp(revision) if canary else route.weight_bp(arm)
            if has >= wanted:
                continue
            until = f"{arm} has {has / 100:g} of {wanted / 100:g} per cent until"
            if not self.observed.answers(revision):
                return False, Reason.WEIGHT_WITHDRAWN, f"{until} it is ready"
            if route is not None and not (self.observed.filter and self.observed.filter.obeys(route.law)):
                return False, Reason.ASSIGNMENT_UNPROVEN, f"{until} the gateway is seen to obey the assignment law"
            return False, Reason.SCALING_UP, f"{until} it has the replicas for it"
        return None

    def experiment_healthy(self) -> _Verdict:
        """Return whether every arm is in traffic, units land where the law says, and the comparison is sound."""
        if self.desired.experiment_id is None:
            between = "no canary is under way; the next one is an experiment"
            message = between if self.desired.canary is not None else "the spec has no experiment"
            return True, Reason.NO_EXPERIMENT, message
        if self.record.invalid == self.desired.salt:
            return False, Reason.ASSIGNMENT_INVALID, self.observed.mismatched or "units land where they should not"
        if self.record.run is None or not self.record.run.is_over:
            return self.unsound() or self.observing()
        if self.record.untold and self.around.evidence.trouble is not None:
            trouble = self.around.evidence.trouble
            return False, trouble.reason, f"the decision has no record yet: {trouble.message}"
        return True, Reason.AS_SPECIFIED, f"{self.desired.experiment_id} is decided"

    def unsound(self) -> _Verdict | None:
        """Return why the experiment cannot be judged; None if it can, or is not to be."""
        if self.desired.design is None:
            return None
        trouble = self.around.evidence.trouble
        if trouble is not None:
            return False, trouble.reason, trouble.message
        invalid = [one for _, one in sorted(self.around.evidence.reports.items()) if one.verdict is Verdict.INVALID]
        silent = [self.report] if self.report is not None and self.report.reason is Why.SOURCE_DOWN else []
        for report in (*invalid, *silent):
            message = f"phase {report.phase}: {report.message} Nothing is promoted or rolled back by it"
            return False, Reason(report.reason.value), message
        return None

    def observing(self) -> _Verdict:
        """Return whether exposures are recorded, and what they say."""
        route, report = self.observed.route, self.report
        if route is None or route.observation is None:
            return False, Reason.NOT_OBSERVING, "no experiment header is sent: an arm is not in traffic (yet)"
        said = f": {report.verdict}, {report.reason}. {report.message}" if report is not None else ""
        return True, Reason.OBSERVING, f"phase {route.observation.phase} is being observed{said}"

    def progressing(self) -> _Verdict:
        """Return whether something is on its way."""
        return self.hindered() or self.late() or self.moving()

    def hindered(self) -> _Verdict | None:
        """Return what keeps changes from being carried out; None if nothing does."""
        if self.around.edit_problem is not None:
            return False, Reason.INVALID_SPEC, f"the last good manifest is in force: {self.around.edit_problem}"
        if self.desired.paused:
            return False, Reason.PAUSED, "paused; changes wait until spec.paused and the pause annotation are gone"
        return None

    def moving(self) -> _Verdict:
        """Return what is being done, or that nothing is left to do."""
        run = self.record.run
        if run is not None and run.state is not State.STABLE:
            return self.under_way()
        if run is None and self.desired.strategy.name == "Experiment" and self.desired.salt in self.record.decided:
            message = f"experiment {self.desired.experiment_id} was decided before and never runs again"
            return False, Reason.ROLLED_BACK, f"{message}; choose a new experiment.id"
        waiting = [
            revision.variant
            for revision in self.desired.revisions.values()
            if revision.name not in self.record.abandoned and not self.observed.ready(revision.name)
        ]
        if waiting:
            return True, Reason.STARTING, f"waiting for {', '.join(waiting)}"
        if run is not None and run.decision is not None:
            return self.after_decision()
        return False, Reason.AS_SPECIFIED, "nothing is left to do"

    def late(self) -> _Verdict | None:
        """Return which revision has not been ready within the progress deadline; None if none is late."""
        deadline_s = self.desired.strategy.progress_deadline_s
        for name, revision in self.desired.revisions.items():
            server = self.observed.server(revision.name)
            if server is None or server.answers or server.created_s is None or revision.name in self.record.abandoned:
                continue
            if server.health is not Health.UNREADY and self.around.now_s - server.created_s > deadline_s:
                why = self.explanation(revision.name, server)
                return False, Reason.PROGRESS_DEADLINE_EXCEEDED, f"{name}: not ready in {deadline_s:g}s: {why}"
        return None

    def under_way(self) -> _Verdict:
        """Return what a run is at."""
        run = self.record.run
        reason, form = _UNDER_WAY[self.record.state]
        arm = self.desired.arms[0] if len(self.desired.arms) == 1 else "VARIANT"
        decision = run.decision if run else None
        held = f"{decision.verdict} ({decision.reason}); " if decision else ""
        name = self.desired.name
        words = {
            "step": run.step + 1 if run else 0,
            "steps": len(self.desired.strategy.steps),
            "awaited": self.awaited(),
            "weights": self.weights(self.desired.arms),
            "next": f"{held}`fairlead promote {name} {arm}` or `fairlead abort {name}` decides",
        }
        return True, reason, form.format(**words)

    def awaited(self) -> str:
        """Return what a run waits for before its candidates get any weight."""
        route, candidates = self.observed.route, [self.desired.revisions[arm].name for arm in self.desired.arms]
        if route is None or not all(self.observed.ready(name) for name in candidates):
            return "the candidates to be ready"
        if not is_registered(self.desired, self.record):
            return "the ledger to take the experiment's design"
        if self.desired.experiment_id and not self.observed.informed((route.control.revision, *candidates)):
            return "every server to know where its ledger is; the kubelet tells them within a minute or two"
        return "the candidates to be ready"

    def after_decision(self) -> _Verdict:
        """Return what is left to do after a run: nothing but to bring the spec up to date."""
        decision = self.record.run.decision if self.record.run else None
        if decision is None:
            return False, Reason.AS_SPECIFIED, "nothing is left to do"
        if decision.verdict == "Rollback":
            return False, Reason.ROLLED_BACK, f"rolled back ({decision.reason}); change the spec to try again"
        if decision.winner in self.desired.treatments:
            message = f"{decision.winner} was promoted; make it the Control in the spec (`fairlead promote -f FILE`)"
            return False, Reason.SPEC_BEHIND, message
        return False, Reason.AS_SPECIFIED, f"promoted ({decision.reason}); nothing is left to do"

    def reason(self, server: Server | None) -> Reason:
        """Return why a variant is not ready."""
        if server is not None and server.failure is not None and server.failure.reason in set(Reason):
            return Reason(server.failure.reason)
        return _REASONS[server.health] if server and server.health in _REASONS else Reason.STARTING

    def explanation(self, revision: str, server: Server | None) -> str:
        """Return why a revision is not ready, in words."""
        if server is not None and server.failure is not None:
            return server.failure.message
        if server is not None and server.health is Health.REDUCED:
            if server.replicas >= server.min_replicas:  # the autoscaler wants more
                return f"{revision} has {server.replicas} replicas available, and more are starting"
            return f"{revision} has {server.replicas} of {server.min_replicas} replicas"
        return f"{revision} is starting"


def _ready(conditions: Iterable[Condition], desired: Desired) -> Condition:
    """Return the sum of the others: the first that stands in the way gives the reason, and one that only waits last."""
    blocking = sorted(filter(_blocks, conditions), key=lambda other: other.reason is Reason.STARTING)
    if blocking:
        return blocking[0].model_copy(update={"type": ConditionType.READY, "status": "False"})
    return Condition(
        type=ConditionType.READY,
        status="True",
        reason=Reason.AS_SPECIFIED,
        message="all that was asked for is so",
        observed_generation=desired.generation,
    )


def _blocks(condition: Condition) -> bool:
    if condition.type is ConditionType.PROGRESSING:
        return condition.reason in {Reason.INVALID_SPEC, Reason.PROGRESS_DEADLINE_EXCEEDED, Reason.ROLLED_BACK}
    if condition.type is ConditionType.EXPERIMENT_HEALTHY:
        return condition.reason in _ENDS_COMPARISON
    if condition.reason is Reason.REDUCED:
        return False
    return condition.status == "False"
