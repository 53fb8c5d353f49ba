"""From what is to what should be: ordered actions, each safe to stop after.

The order is the law: a route names only what is ready, and is written first, so that what has gone loses its weight
at once; then what makes the gateway obey the assignment law, then servers and their replicas; what the route no
longer names is taken down last. Run again after any interruption, the plan goes on from the world as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fairlead import BUCKETS
from fairlead_operator.core.desired import Desired, Revision
from fairlead_operator.core.goal import Goal, current_run, goal_of, replicas_for, winner_of
from fairlead_operator.core.observed import Health, Observed, Route, Server
from fairlead_operator.core.record import Record, State
from fairlead_operator.core.routing import held, route_for


@dataclass(frozen=True, slots=True)
class Replicas:
    """Bounds of a server's replicas."""

    fewest: int
    most: int
    cpu_percent: int


@dataclass(frozen=True, slots=True)
class StartServer:
    """Start a revision's server; start it again after it was refused and the spec has changed; or restore it."""

    revision: Revision
    generation: int
    """Of the spec that asks for it."""
    replicas: Replicas


@dataclass(frozen=True, slots=True)
class ScaleServer:
    """Change the bounds of a revision's replicas; no replica that runs is touched by it."""

    revision: Revision
    replicas: Replicas


@dataclass(frozen=True, slots=True)
class WriteRoute:
    """Make the gateway route so, and wait until it has confirmed it."""

    route: Route


@dataclass(frozen=True, slots=True)
class InstallFilter:
    """Make the gateway split this route by the assignment law. The route has two destinations wherever it splits."""

    route: Route


@dataclass(frozen=True, slots=True)
class ProveFilter:
    """Ask the gateway where known units land, and remember whether the law holds."""

    route: Route


@dataclass(frozen=True, slots=True)
class RemoveFilter:
    """Take away what makes the gateway split by the law. Control has every bucket."""


@dataclass(frozen=True, slots=True)
class StopServer:
    """Drain a revision's server and end it. No route names it any more."""

    revision: str


Action = StartServer | ScaleServer | WriteRoute | InstallFilter | ProveFilter | RemoveFilter | StopServer


def plan(desired: Desired, observed: Observed, record: Record) -> tuple[Action, ...]:
    """Return what to do now, in order; nothing when the world is as desired.

    Args:
        desired: What should be.
        observed: What is.
        record: What the rollout has come to.
    """
    blocked_route = any(problem.stops_route for problem in observed.problems)
    blocked_servers = any(problem.stops_servers for problem in observed.problems)
    changed = desired.paused and record.in_force != desired.fingerprint  # what is in force is not known any more
    route = None if blocked_route else _coming_route(desired, observed, record, changed=changed)
    actions: list[Action] = []
    if route is not None and (route != observed.route or observed.route_altered):
        actions.append(WriteRoute(route))
    filtering = [] if blocked_route else _filtering(desired, observed, record, route or observed.route)
    actions += [action for action in filtering if not isinstance(action, ProveFilter)]
    if not blocked_servers and not changed:
        goal, wanted = goal_of(desired, record), wanted_revisions(desired, record)
        actions += _starts(desired, observed, record, goal, wanted)
        actions += [] if blocked_route else _stops(observed, wanted, route or observed.route)
    actions += [action for action in filtering if isinstance(action, ProveFilter)]  # it may take its time
    return tuple(actions)


def _coming_route(desired: Desired, observed: Observed, record: Record, *, changed: bool) -> Route | None:
    """Return the route to be written; while all is paused, the present one without what does not answer."""
    run, before = current_run(desired, record), observed.route
    rises = run is not None and (run.state is State.PROMOTING or (run.state.is_splitting and not run.in_force))
    if changed or (desired.paused and rises and before is not None):
        return held(before, observed) if before is not None else None
    return route_for(desired, observed, record)


def parting(observed: Observed) -> tuple[Action, ...]:
    """Return what to do, in order, before a deployment's route may be deleted; nothing when it may."""
    route = observed.route
    if route is None:
        return () if observed.filter is None or observed.filter.law == "*" else (RemoveFilter(),)
    actions: list[Action] = []
    if not route.is_whole or route.observation or observed.route_altered:
        actions.append(WriteRoute(_all_to_control(route)))
    if observed.filter is not None and observed.filter.law != "*":
        actions.append(RemoveFilter())
    return tuple(actions)


def wanted_revisions(desired: Desired, record: Record) -> Mapping[str, Revision]:
    """Return every revision that is to have a server: the spec's, the stable one, and those kept warm."""
    wanted = {
        revision.name: revision for revision in desired.revisions.values() if revision.name not in record.abandoned
    }
    if record.stable is not None:
        wanted.setdefault(record.stable.name, record.stable)
    for kept in record.kept:
        wanted.setdefault(kept.revision.name, kept.revision)
    return wanted


def _all_to_control(route: Route) -> Route:
    return replace(
        route,
        split=tuple(replace(route.control, width_bp=destination.width_bp) for destination in route.split),
        observation=None,
    )


def _filtering(desired: Desired, observed: Observed, record: Record, route: Route | None) -> list[Action]:
    """Return what makes the gateway obey the law for ``route``, which is written by then."""
    standing = observed.filter
    if standing is not None and standing.law == "*":
        return []
    if route is None or (route.is_whole and not _splits(desired, record)):
        whole = observed.route is None or observed.route.is_whole
        return [RemoveFilter()] if standing is not None and whole and not desired.paused else []
    actions: list[Action] = []
    if standing is None or standing.law != route.law:
        actions.append(InstallFilter(route))
    if standing is None or not standing.obeys(route.law):
        actions.append(ProveFilter(route))
    return actions


def _splits(desired: Desired, record: Record) -> bool:
    """Return whether the route is to be split, now or soon."""
    if desired.strategy.name == "Canary":
        return record.run is not None and record.run.state is not State.STABLE
    return bool(desired.treatments)


def _starts(
    desired: Desired, observed: Observed, record: Record, goal: Goal, wanted: Mapping[str, Revision]
) -> list[Action]:
    actions: list[Action] = []
    for name, revision in sorted(wanted.items(), key=lambda item: item[1].variant != desired.control):
        replicas = replicas_of(desired, observed, record, goal, revision)
        server = observed.servers.get(name)
        if server is None or server.altered or _worth_another_try(server, desired):
            actions.append(StartServer(revision, desired.generation, replicas))
        elif (server.min_replicas, server.max_replicas) != (replicas.fewest, replicas.most):
            actions.append(ScaleServer(revision, replicas))
    return actions


def replicas_of(desired: Desired, observed: Observed, record: Record, goal: Goal, revision: Revision) -> Replicas:
    """Return the bounds of a revision's replicas: enough for the share it has, and for the one it is to get."""
    everything = BUCKETS if _holds_everything(desired, observed, record, goal, revision) else 0
    scaling = desired.scaling.get(revision.variant)
    if scaling is None:  # a variant that the spec has no more, kept warm
        return Replicas(replicas_for(everything, record.capacity), max(1, record.capacity), 70)
    width_bp = max(everything, _share_bp(desired, observed, record, goal, revision))
    needed = max(replicas_for(width_bp, goal.capacity), _replaced(desired, observed, revision))
    return Replicas(min(max(scaling.min_replicas, needed), scaling.most), scaling.most, scaling.target.cpu_percent)


def _share_bp(desired: Desired, observed: Observed, record: Record, goal: Goal, revision: Revision) -> int:
    """Return the share that a revision is kept ready for: what it has as an arm, or is to get; nothing once decided."""
    if revision.variant not in desired.arms:
        return 0
    has = observed.route.share_bp(revision.name) if observed.route else 0
    is_wanted = desired.revisions[revision.variant].name == revision.name
    if goal.winner is not None:
        over = record.run is not None and record.run.is_over and has == BUCKETS
        return BUCKETS if is_wanted and goal.winner == revision.variant and not over else 0
    return max(has, goal.ahead_bp.get(revision.variant, 0) if is_wanted else 0)


def _replaced(desired: Desired, observed: Observed, revision: Revision) -> int:
    """Return the replicas of what ``revision`` is about to replace in its variant's place."""
    before = observed.route.revision_of(revision.variant) if observed.route else None
    wanted = desired.revisions[revision.variant].name
    server = observed.server(before)
    if revision.name != wanted or server is None or before == wanted or desired.strategy.name == "Canary":
        return 0
    return server.replicas


def _holds_everything(desired: Desired, observed: Observed, record: Record, goal: Goal, revision: Revision) -> bool:
    """Return whether ``revision`` must be able to take everything back: control, until the decision is final.

    It is final when what a promotion replaced is not kept warm any more.
    """
    run = record.run
    if run is None:
        return False
    if run.state is State.STABLE:
        undone_by = record.kept[0].revision.name if record.kept and winner_of(desired, run) else None
        return revision.name == undone_by
    base = goal.base if goal.base is not None else desired.revisions[desired.control].name
    return revision.name == base or (observed.route is not None and revision.name == observed.route.control.revision)


def _worth_another_try(server: Server, desired: Desired) -> bool:
    """Return whether to start a server again: it was refused and the spec has changed since."""
    return server.health is Health.REFUSED and server.generation < desired.generation


def _stops(observed: Observed, wanted: Mapping[str, Revision], route: Route | None) -> list[Action]:
    """Return the servers to take down: not wanted, and not named by the coming route, or by the present one."""
    reached = route.revisions if route else frozenset()
    return [StopServer(name) for name in observed.servers if name not in wanted and name not in reached]
