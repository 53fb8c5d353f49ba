"""From what is to what should be: ordered actions, each safe to stop after.

The order is the law: a route names only what is ready, and is written first, so that what has gone loses its weight
at once; then servers are started; what the route no longer names is taken down last. Run again after any
interruption, the plan goes on from the world as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fairlead import Layout
from fairlead_operator.core.desired import Desired, Revision
from fairlead_operator.core.observed import Destination, Health, Observation, Observed, Route, Server


@dataclass(frozen=True, slots=True)
class StartServer:
    """Start a revision's server; or start it again at once after it was refused and the spec has changed."""

    revision: Revision
    generation: int
    """Of the spec that asks for it."""


@dataclass(frozen=True, slots=True)
class WriteRoute:
    """Make the gateway route so, and wait until it has confirmed it."""

    route: Route


@dataclass(frozen=True, slots=True)
class StopServer:
    """Drain a revision's server and end it. No route names it any more."""

    revision: str


Action = StartServer | WriteRoute | StopServer


def plan(desired: Desired, observed: Observed, phase: int) -> tuple[Action, ...]:
    """Return what to do now, in order; nothing when the world is as desired.

    Args:
        desired: What should be.
        observed: What is.
        phase: Number of the experiment's phase that ``desired`` belongs to.
    """
    route = route_for(desired, observed, phase)
    wanted = {revision.name: revision for revision in desired.revisions.values()}
    starts = [
        StartServer(revision, desired.generation)
        for name, revision in wanted.items()
        if _worth_starting(observed.servers.get(name), desired)
    ]
    writes = [WriteRoute(route)] if route is not None and route != observed.route else []
    needed = wanted.keys() | _reached(route, observed)
    stops = [StopServer(name) for name in observed.servers if name not in needed]
    return (*writes, *starts, *stops)


def route_for(desired: Desired, observed: Observed, phase: int) -> Route | None:
    """Return the best route that what is ready now allows; None before control was ever ready."""
    serving = {variant: _serving(desired, observed, variant) for variant in desired.revisions}
    if _is_handing_over(desired, observed, serving[desired.control]):
        return _held(observed.route, observed) if observed.route else None
    # Not ready, perhaps; but nothing is better than control.
    control = serving[desired.control] or (observed.route.control.revision if observed.route else None)
    if control is None:
        return None
    in_force = {arm: _weight_bp(desired, observed, arm, serving[arm]) for arm in desired.weights_bp}
    named = {variant: serving[variant] or revision.name for variant, revision in desired.revisions.items()}
    named[desired.control] = control
    return Route(
        reach=desired.reach,
        salt=desired.salt,
        split=tuple(Destination(arm, named[arm], width) for arm, width in desired.widths(in_force)),
        control=Destination(desired.control, control, 0),
        overrides=tuple(serving.items()),
        shadows=tuple(revision for shadow in desired.shadows if (revision := serving[shadow])),
        observation=_observation(desired, serving, phase),
    )


def _weight_bp(desired: Desired, observed: Observed, arm: str, serving: str | None) -> int:
    """Return the weight of a treatment now: none without a ready server, no more than it has on an old revision."""
    wanted = desired.weights_bp[arm]
    if serving is None:
        return 0
    if serving == desired.revisions[arm].name or observed.route is None:
        return wanted
    return min(wanted, observed.route.weight_bp(arm))


def _observation(desired: Desired, serving: Mapping[str, str | None], phase: int) -> Observation | None:
    """Return what the experiment header says: nothing while an arm is out of traffic or on an old revision."""
    arms = [desired.control, *(arm for arm, weight in desired.weights_bp.items() if weight)]
    whole = all(serving[arm] == desired.revisions[arm].name for arm in arms)
    if desired.experiment_id is None or not whole:
        return None
    return Observation(desired.salt, phase, Layout.of(desired.control, desired.weights_bp))


def _serving(desired: Desired, observed: Observed, variant: str) -> str | None:
    """Return the ready revision that answers for ``variant``: the wanted one, else the one it is about to replace."""
    wanted = desired.revisions[variant].name
    before = observed.route.revision_of(variant) if observed.route else None
    for name in (wanted, before):
        if _is_ready(observed, name):
            return name
    return None


def _is_handing_over(desired: Desired, observed: Observed, serving: str | None) -> bool:
    """Return whether another variant is to become control and its wanted revision is not ready to."""
    if observed.route is None or observed.route.control.variant == desired.control:
        return False
    return serving != desired.revisions[desired.control].name


def _held(route: Route, observed: Observed) -> Route:
    """Return ``route`` without what is not ready, until another variant can take over as control."""

    def standing(destination: Destination) -> Destination:
        if _is_ready(observed, destination.revision) or destination.variant == route.control.variant:
            return destination
        return replace(route.control, width_bp=destination.width_bp)

    return replace(
        route,
        split=tuple(standing(destination) for destination in route.split),
        overrides=tuple((variant, name if _is_ready(observed, name) else None) for variant, name in route.overrides),
        shadows=tuple(name for name in route.shadows if _is_ready(observed, name)),
        observation=None,
    )


def _is_ready(observed: Observed, revision: str | None) -> bool:
    server = observed.servers.get(revision) if revision else None
    return server is not None and server.ready


def _worth_starting(server: Server | None, desired: Desired) -> bool:
    """Return whether to start a server: there is none, or it was refused and the spec has changed since."""
    return server is None or (server.health is Health.REFUSED and server.generation < desired.generation)


def _reached(route: Route | None, observed: Observed) -> frozenset[str]:
    """Return what must not be taken down: what the coming route names, or the present one if none is coming."""
    last = route or observed.route
    return last.revisions if last else frozenset()
