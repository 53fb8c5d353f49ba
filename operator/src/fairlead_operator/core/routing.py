"""The best route that what is ready now allows, for the weights that the rollout wants. Pure.

A share grows only onto what is complete, and stays while something answers; nothing is better than control. At
every write there are two destinations or more, and their widths sum to all buckets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from fairlead import BUCKETS, Layout
from fairlead.experiment.design import Design
from fairlead_operator.core.canary import compared
from fairlead_operator.core.desired import Desired
from fairlead_operator.core.goal import Goal, goal_of, replicas_for
from fairlead_operator.core.observed import Destination, Observation, Observed, Route
from fairlead_operator.core.record import Record


def route_for(desired: Desired, observed: Observed, record: Record) -> Route | None:
    """Return the best route that what is ready now allows; None before control was ever ready."""
    desired = compared(desired, record)
    goal, before = goal_of(desired, record), observed.route
    serving = {variant: _serving(desired, observed, record, variant) for variant in desired.revisions}
    if before is not None and _is_handing_over(desired, before, goal, serving[desired.control]):
        return replace(held(before, observed), observation=None)
    look = _Look(desired, observed, record, goal, serving)
    route = look.promotion(goal.winner) if goal.winner is not None else look.split()
    starts_well = all(observed.answers(destination.revision) for destination in route.split if destination.width_bp)
    return route if before is not None or starts_well else None


def pieces(arms: Mapping[str, int]) -> Iterator[tuple[str | None, int]]:
    """Lay arms of these weights over the buckets, by the law of ``fairlead.Layout``; None is control's part.

    Entries of width 0 are kept, and there are always two: a route may never list one destination alone.
    """
    slot = BUCKETS // max(len(arms), 1)
    laid: list[tuple[str | None, int]] = []
    for arm, width in arms.items():
        laid += [(arm, width), (None, slot - width)]
    rest = BUCKETS - sum(width for _, width in laid)
    if rest or not laid:
        laid.append((None, rest))
    yield from laid
    if len(laid) == 1:
        yield None, 0


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at a deployment whose control is known."""

    desired: Desired
    observed: Observed
    record: Record
    goal: Goal
    serving: Mapping[str, str | None]
    """Revision that answers for each variant."""

    @property
    def control(self) -> str:
        """Revision that has what no arm has. Not ready, perhaps; but nothing is better than control."""
        before, variant = self.observed.route, self.desired.control
        named = before.control.revision if before is not None and before.control.variant == variant else None
        return self.base or self.serving[variant] or named or self.desired.revisions[variant].name

    @property
    def control_variant(self) -> str:
        """Variant of that revision."""
        return self.record.stable.variant if self.base and self.record.stable else self.desired.control

    @property
    def base(self) -> str | None:
        """The rollout's base, if it has control's part already or answers; an edit may name one that has died."""
        base, before = self.goal.base, self.observed.route
        fits = base is not None and (before is None or before.control.revision == base or self.observed.answers(base))
        return base if fits else None

    def split(self) -> Route:
        """Return the route that splits units between control and the arms."""
        widths = {arm: self.width(arm) for arm in self.desired.arms}
        route = self.laid(widths)
        if not self.may_split(route):
            return self.laid(dict.fromkeys(self.desired.arms, 0))
        return replace(route, observation=self.observation(widths, route.law))

    def promotion(self, winner: str) -> Route:
        """Return the route of a promotion: losers give their part to control, then control's parts go to the winner."""
        revision = self.named(winner)
        ended = self.laid({arm: self.width(arm) if arm == winner else 0 for arm in self.desired.arms})
        if not self.may_take_over(winner, revision):
            return ended if self.may_split(ended) else self.laid(dict.fromkeys(self.desired.arms, 0))
        taken = (Destination(winner, revision, d.width_bp) if d.revision == self.control else d for d in ended.split)
        return replace(ended, split=tuple(taken), control=Destination(winner, revision, 0))

    def may_take_over(self, winner: str, revision: str) -> bool:
        """Return whether the winner has everything already, or the experiment is ended and its replicas are enough."""
        before = self.observed.route
        if not self.observed.answers(revision):  # what has everything keeps it where nothing is better
            return bool(before and before.share_bp(revision) == BUCKETS and not self.observed.answers(self.control))
        if before is None:
            return self.record.run is not None and self.record.run.is_over
        if before.share_bp(revision) == BUCKETS:
            return True
        if not self.observed.may_grow or self.has_other_features(revision):
            return False
        losers = any(before.weight_bp(arm) for arm in self.desired.treatments if arm != winner)
        return not losers and before.observation is None and self.is_enough(winner, revision, BUCKETS)

    def has_other_features(self, revision: str) -> bool:
        """Return whether a revision's features are known to have become others since it was trained."""
        server = self.observed.server(revision)
        return server is not None and server.features is not None

    def laid(self, widths: Mapping[str, int]) -> Route:
        """Return the route with arms of these widths, and no experiment header."""
        desired = self.desired
        rest = Destination(self.control_variant, self.control, 0)
        return Route(
            reach=desired.reach,
            salt=desired.salt,
            split=tuple(
                replace(rest, width_bp=width) if arm is None else Destination(arm, self.named(arm), width)
                for arm, width in pieces(widths)
            ),
            control=rest,
            overrides=tuple((variant, self.tested(variant)) for variant in desired.revisions),
            shadows=tuple(revision for shadow in desired.shadows if (revision := self.serving[shadow])),
            observation=None,
        )

    def tested(self, variant: str) -> str | None:
        """Return the revision that testers of ``variant`` reach; None while none answers."""
        if self.is_canary and variant == self.control_variant:
            return self.control if self.observed.answers(self.control) else None
        revision = self.serving[variant]
        return None if revision is not None and self.is_given_up(revision) else revision

    def is_given_up(self, revision: str) -> bool:
        """Return whether a revision was rolled back and is not kept warm any more: it goes once nothing names it."""
        return revision in self.record.abandoned and all(kept.revision.name != revision for kept in self.record.kept)

    def named(self, arm: str) -> str:
        """Return the revision that the route names for an arm, ready or not."""
        wanted = self.desired.revisions[arm].name
        return wanted if self.is_canary else self.serving[arm] or wanted

    def width(self, arm: str) -> int:
        """Return the weight of an arm now: it grows only onto what is complete, and stays while something answers."""
        wanted, revision = self.goal.weights_bp[arm], self.named(arm)
        if revision == self.control or not self.observed.answers(revision):
            return 0
        now = self.share(arm, revision)
        grows = wanted > now
        complete = self.observed.may_gain(revision) and revision == self.desired.revisions[arm].name
        may_grow = complete and self.observed.may_grow and self.is_enough(arm, revision, wanted)
        return now if grows and not may_grow else wanted

    def share(self, arm: str, revision: str) -> int:
        """Return what an arm has in the present route, if that splits by the same law."""
        route = self.observed.route
        if route is None or route.salt != self.desired.salt:
            return 0
        return route.share_bp(revision) if self.is_canary else route.weight_bp(arm)

    def is_enough(self, arm: str, revision: str, width_bp: int) -> bool:
        """Return whether a revision has the replicas that a share needs."""
        needed = min(replicas_for(width_bp, self.goal.capacity), self.desired.scaling[arm].most)
        server = self.observed.server(revision)
        return server is not None and server.replicas >= needed

    def may_split(self, route: Route) -> bool:
        """Return whether arms may have weight: the gateway is known to obey the law, or splits by it already."""
        if self.observed.mismatched or any(problem.stops_split for problem in self.observed.problems):
            return False
        if self.observed.filter is not None and self.observed.filter.obeys(route.law):
            return True
        before = self.observed.route
        return before is not None and before.law == route.law and not before.is_whole

    def observation(self, widths: Mapping[str, int], law: str) -> Observation | None:
        """Return what the experiment header says: nothing while an arm is out of traffic or predicts otherwise."""
        goal, phase, standing = self.goal, self.record.phase, self.observed.filter
        if not goal.observes or phase is None or dict(widths) != dict(goal.weights_bp):
            return None
        if standing is None or not standing.obeys(law) or not self.may_begin(widths):
            return None
        design = self.desired.design if self.desired.canary is not None else None
        if design is not None:
            return self.observation_of_revisions(design, phase.number) if design.control == self.control else None
        for arm in (self.desired.control, *(arm for arm, width in widths.items() if width)):
            if not self.predicts(self.serving[arm], self.desired.revisions[arm].prediction):
                return None
        return Observation(self.desired.salt, phase.number, Layout.of(self.desired.control, goal.weights_bp))

    def observation_of_revisions(self, design: Design, phase: int) -> Observation | None:
        """Return the same of a canary: its arms are the stable revision and the candidate."""
        if not all(self.predicts(revision, prediction) for revision, prediction in design.digests.items()):
            return None
        weights = {design.treatments[0]: self.goal.weights_bp[self.desired.control]}
        return Observation(self.desired.salt, phase, Layout.of(design.control, weights))

    def may_begin(self, widths: Mapping[str, int]) -> bool:
        """Return whether exposures are counted in every arm from one moment on; so they are once they have begun."""
        before = self.observed.route.observation if self.observed.route else None
        if before is not None and before.salt == self.desired.salt:
            return True
        return self.observed.informed(self.serving[arm] for arm in (self.desired.control, *widths))

    def predicts(self, revision: str | None, prediction: str) -> bool:
        """Return whether a revision answers, and predicts as it should."""
        server = self.observed.server(revision)
        return server is not None and server.answers and server.prediction == prediction

    @property
    def is_canary(self) -> bool:
        """Whether the arms are revisions of one variant."""
        return self.desired.strategy.name == "Canary"


def _serving(desired: Desired, observed: Observed, record: Record, variant: str) -> str | None:
    """Return the revision that answers for ``variant``: the wanted one, else the one it is about to replace."""
    wanted = desired.revisions[variant].name
    if observed.route is not None:
        before = observed.route.revision_of(variant)
    else:  # the route was lost, perhaps; what it named is known
        before = record.stable.name if record.stable and record.stable.variant == variant else None
    if observed.ready(wanted) or (wanted == before and observed.answers(wanted)):
        return wanted
    return before if observed.answers(before) else None


def _is_handing_over(desired: Desired, before: Route, goal: Goal, serving: str | None) -> bool:
    """Return whether another variant is to become control and its wanted revision is not ready to."""
    if before.control.variant in {desired.control, goal.winner} or before.control.revision == goal.base:
        return False
    return serving != desired.revisions[desired.control].name


def held(route: Route, observed: Observed) -> Route:
    """Return ``route`` without what does not answer: nothing is gained, and what is lost goes to control."""

    def standing(destination: Destination) -> Destination:
        if observed.answers(destination.revision) or destination.variant == route.control.variant:
            return destination
        return replace(route.control, width_bp=destination.width_bp)

    split = tuple(standing(destination) for destination in route.split)
    fair = split == route.split and observed.answers(route.control.revision)
    return replace(
        route,
        split=split,
        overrides=tuple((variant, name if observed.answers(name) else None) for variant, name in route.overrides),
        shadows=tuple(name for name in route.shadows if observed.answers(name)),
        observation=route.observation if fair else None,
    )
