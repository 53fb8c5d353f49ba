"""What a deployment remembers: enough to go on after any end, on any platform.

It is kept in an owned ConfigMap and on the route in a cluster, in the state folder on one machine; never in status
alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError

from fairlead.experiment.design import Design
from fairlead_operator.core.desired import Revision

MOST_UNTOLD = 8
"""Decisions that wait for the ledger; older ones are in its analysis all the same."""


class State(StrEnum):
    """Where a rollout stands."""

    PENDING = "Pending"
    """Nothing answers yet."""
    DEPLOYING = "Deploying"
    """Candidates are being started; none has weight."""
    RAMPING = "Ramping"
    """Candidates have the weights of a step."""
    DECIDING = "Deciding"
    """The last step lasts until an analysis or somebody decides."""
    PROMOTING = "Promoting"
    """The winner takes over, losers first give their part to control."""
    ROLLING_BACK = "RollingBack"
    """Control takes everything back."""
    STABLE = "Stable"
    """Nothing is under way."""

    @property
    def is_splitting(self) -> bool:
        """Whether candidates have weight by plan."""
        return self in {State.RAMPING, State.DECIDING}


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where a decision record is."""

    address: str
    digest: str | None
    """What the record says of itself; None if another decision had been told before."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How a rollout was decided."""

    verdict: str
    """Promote, Rollback or Hold."""
    reason: str
    """CamelCase."""
    at_s: float
    """Unix time, seconds."""
    winner: str | None = None
    """Variant that was promoted."""
    analysis: str | None = None
    """Verdict of the analysis that decided; None if something else did."""
    phase: int = 0
    """Step that the analysis was of, or that the run had come to."""
    record: Recorded | None = None
    """None until the ledger has one."""


@dataclass(frozen=True, slots=True)
class Untold:
    """A decision about an experiment that the ledger has yet to be told."""

    salt: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class Registered:
    """The design that the ledger has."""

    salt: str
    digest: str


@dataclass(frozen=True, slots=True)
class Gaps:
    """Times in which an arm was out of traffic, within one step."""

    count: int = 0
    total_s: float = 0.0
    """Of those that are over."""
    since_s: float | None = None
    """When the present one began, Unix time; None if there is none."""

    def later(self, seconds: float) -> Gaps:
        """Return the gaps as if the present one had begun ``seconds`` later."""
        return self if self.since_s is None else replace(self, since_s=self.since_s + seconds)

    def until(self, now_s: float) -> float:
        """Return how long all of them have lasted, seconds."""
        return self.total_s + (now_s - self.since_s if self.since_s is not None else 0.0)

    def noted(self, *, whole: bool, now_s: float) -> Gaps:
        """Return the gaps after a look at ``now_s`` that found all arms in traffic, or not."""
        if whole == (self.since_s is None):
            return self
        if whole:
            return Gaps(self.count, self.until(now_s))
        return Gaps(self.count + 1, self.total_s, now_s)

    @property
    def is_open(self) -> bool:
        """Whether there is one at present."""
        return self.since_s is not None


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a canary's two revisions are compared; frozen when its run begins."""

    design: Design
    """Its arms are revisions: the stable one, and the candidate."""
    reached_by: str
    """``Desired.reached_by`` then."""


@dataclass(frozen=True, slots=True)
class Run:
    """One rollout, from its candidates' start to its decision."""

    id: str
    """The experiment's salt; under Canary the candidate revision, or the salt by which it is compared."""
    state: State
    started_s: float
    """Unix time, seconds; so are the other times here."""
    since_s: float
    """When the state, or the step's weights, came into force."""
    step: int = 0
    in_force: bool = False
    """Whether the route has had the step's weights."""
    preparing: bool = False
    """Whether the step is over and the next one's replicas are being made."""
    gaps: Gaps = Gaps()
    """Times in which an arm other than control was out of traffic."""
    decision: Decision | None = None
    away: Gaps = Gaps()
    """Times in which control did not answer, or nothing was observed: nobody's failure, and nobody's time."""
    ignores: str | None = None
    """Request that stood already when the run began: it spoke of an earlier one."""
    comparison: Comparison | None = None
    """How its revisions are compared; None for all but a canary with guardrails."""

    @property
    def candidate(self) -> str:
        """Under Canary the revision that is rolled out."""
        return self.id if self.comparison is None else self.comparison.design.treatments[0]

    @property
    def is_over(self) -> bool:
        """Whether it was promoted or rolled back, and that is done."""
        return self.state is State.STABLE and self.decision is not None


@dataclass(frozen=True, slots=True)
class Kept:
    """A revision that stays warm for a while."""

    revision: Revision
    until_s: float
    good: bool = True
    """Whether it served everything, rather than being rolled back: it may do so again at once."""


@dataclass(frozen=True, slots=True)
class Past:
    """A rollout that is over."""

    revision: str
    started_s: float
    ended_s: float
    verdict: str
    reason: str


@dataclass(frozen=True, slots=True)
class Phase:
    """The weights under one salt while they stay the same."""

    salt: str
    number: int
    """From 0; the planned step in an experiment by steps, else a count of changes of weight."""
    weights_bp: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Record:
    """Everything remembered."""

    release: str
    """Release of the model server, fixed when the deployment was made."""
    phase: Phase | None = None
    stable: Revision | None = None
    """The control's revision that last was whole."""
    kept: tuple[Kept, ...] = ()
    run: Run | None = None
    capacity: int = 1
    """Most replicas that control had since the rollout began: what may have to be taken over, or back."""
    abandoned: tuple[str, ...] = ()
    """Revisions that were rolled back; they are not started again."""
    decided: tuple[str, ...] = ()
    """Runs that were decided and never run again, newest first."""
    invalid: str | None = None
    """Salt under which the gateway broke the assignment law; no treatment has weight under it."""
    history: tuple[Past, ...] = ()
    """Newest first."""
    in_force: str | None = None
    """``Desired.fingerprint`` of what is in force, by which a pause knows whether the spec has changed."""
    paused_s: float | None = None
    """Since when everything is paused, Unix time; None if it is not."""
    accounted_s: float | None = None
    """``paused_s`` of the last pause that was taken out of all times; it is not taken out again."""
    registered: Registered | None = None
    """The design of the last experiment that the ledger took; nobody is exposed before."""
    untold: tuple[Untold, ...] = ()
    """Decisions that the ledger has yet to be told, newest first."""

    @property
    def state(self) -> State:
        """Where the rollout stands."""
        if self.run is not None:
            return self.run.state
        return State.STABLE if self.stable else State.PENDING

    def later(self, seconds: float) -> Record:
        """Return the record as if everything that is under way had begun ``seconds`` later."""
        run = self.run
        if run is not None:
            gaps, away = run.gaps.later(seconds), run.away.later(seconds)
            run = replace(run, since_s=run.since_s + seconds, gaps=gaps, away=away)
        kept = tuple(replace(kept, until_s=kept.until_s + seconds) for kept in self.kept)
        return replace(self, run=run, kept=kept)

    def telling(self, salt: str, decision: Decision) -> Record:
        """Return the record with ``decision`` to be told to the ledger, if that knows of the experiment."""
        if self.registered is None or self.registered.salt != salt or decision.verdict == "Hold":
            return self
        others = tuple(one for one in self.untold if one.salt != salt)
        return replace(self, untold=(Untold(salt, decision), *others)[:MOST_UNTOLD])

    def keeping(self, revision: Revision, until_s: float, *, good: bool = True) -> Record:
        """Return the record with ``revision`` kept warm until ``until_s``."""
        others = tuple(kept for kept in self.kept if kept.revision.name != revision.name)
        return replace(self, kept=(Kept(revision, until_s, good), *others))


_RECORD = TypeAdapter(Record)


def dumped(record: Record) -> str:
    """Return ``record`` as compact JSON."""
    return _RECORD.dump_json(record, exclude_defaults=True).decode()


def loaded(text: str | bytes) -> Record | None:
    """Return the record that :func:`dumped` made; None if it is damaged or of another version."""
    try:
        return _RECORD.validate_json(text)
    except ValidationError:
        return None
