"""A deployment under load while something happens to it, and what became of every request."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from e2e.accounts import Balance, Split, misassigned
from e2e.counting import Counting
from e2e.errors import NotSeen, see
from e2e.scene import CONTROL, FLIGHT, TREATMENT, UNITS, Scene, host_of
from e2e.story import Seen
from fairlead import Layout, bucket_of
from fairlead.assignment import Slice
from fairlead_operator.core.observed import Route
from support.cluster import wait_for
from support.cluster_deployed import Deployed
from support.gateway_load import Load, Sample

_FOLLOWS_S = 60.0
"""A gateway whose istiod was away asks for it again after up to 30 s; until then it serves by the weight before."""
_SETTLES_S = 1.0
"""How long a load goes on before something happens to it, and after."""


@dataclass(slots=True)
class Trial:
    """A deployment under load."""

    deployed: Deployed
    salt: str
    splits: list[Split]
    """Oldest first; the last is in force."""
    load: Load
    _balance: Balance | None = None

    def weigh(self, weight: int) -> float:
        """Change the treatment's weight, per cent; return the seconds until it is in force and an answer shows it."""
        asked_s = time.monotonic()
        old, new = self.splits[-1], Split(layout_at(weight), asked_s)
        self.splits.append(new)
        self.deployed.patch(rollout={"strategy": "Manual", "weights": {TREATMENT: weight}})
        self.deployed.wait_weights(**{TREATMENT: weight})

        def shows(sample: Sample) -> bool:
            bucket = bucket_of(sample.unit, self.salt)
            return sample.variant == new.layout.arm_at(bucket) != old.layout.arm_at(bucket)

        def follows() -> bool:
            return any(shows(sample) for sample in self.load.sent_since(asked_s))

        wait_for(follows, timeout_s=_FOLLOWS_S, otherwise=lambda: f"no answer shows the weight {weight}")
        followed_s = time.monotonic()
        self.splits[-2] = replace(old, until_s=followed_s)
        return followed_s - asked_s

    def go_on(self, seconds: float = _SETTLES_S) -> None:
        """Let the load go on until so much more of it was sent."""
        until_s = time.monotonic() + seconds
        wait_for(lambda: bool(self.load.sent_since(until_s)), timeout_s=seconds + _FOLLOWS_S)

    def seen(self, sentence: str, *, gap_s: float = 0.0, **figures: float | str) -> Seen:
        """Check that every request was answered by its arm, once the load has ended, and return what was seen.

        Args:
            sentence: What happened.
            gap_s: See ``Balance.check``.
            figures: What was measured besides.
        """
        if self._balance is None:
            raise NotSeen("the load has not ended")
        self._balance.check(gap_s=gap_s)
        seen = self._balance.seen(sentence)
        return Seen(seen.sentence, {**seen.figures, **figures})

    def close(self, balance: Balance) -> None:
        """Take in what became of the requests."""
        self._balance = balance


@contextmanager
def trial(scene: Scene, deployed: Deployed, *, connections: int = 2, pause_s: float = 0.03) -> Iterator[Trial]:
    """Ask a deployment for predictions over REST and gRPC, in closed loops, while it is entered.

    Args:
        scene: Where.
        deployed: What is asked.
        connections: Over each protocol.
        pause_s: Of each connection between two requests.
    """
    route = route_of(deployed)
    address, host = scene.facts.gateway.address, host_of(deployed)
    load = Load(address, host, deployed.name, UNITS, connections=connections, pause_s=pause_s, row=FLIGHT)
    made = Trial(deployed, route.salt, [Split(layout_of(route), time.monotonic())], load)
    before = retries(scene)
    with Counting(scene.facts.kubeconfig, deployed.namespace, deployed.name) as counting, load:
        made.go_on()
        yield made
        made.go_on()
    balance = Balance(
        samples=tuple(load.samples),
        misassigned=misassigned(load.samples, made.splits, route.salt),
        counted=counting.gained("counted"),
        failed=counting.gained("failed"),
        mismatched=counting.gained("mismatched"),
        retried=gained(before, retries(scene)),
    )
    made.close(balance)


def route_of(deployed: Deployed) -> Route:
    """Return the route in force.

    Raises:
        NotSeen: There is none.
    """
    route = deployed.route()
    if route is None:
        raise NotSeen(f"{deployed.name} has no route")
    return route


def layout_of(route: Route) -> Layout:
    """Return where a route lays its variants."""
    return Layout(tuple(Slice(one.variant, one.width_bp) for one in route.split if one.width_bp))


def layout_at(weight: int) -> Layout:
    """Return where the law lays the treatment at a weight, per cent."""
    return Layout.of(CONTROL, {TREATMENT: weight * 100})


def retries(scene: Scene) -> dict[str, int]:
    """Return how many attempts the gateway has made anew so far, by Envoy's cluster."""
    text = scene.cluster.gateway_statistics("upstream_rq_retry$")
    found = re.findall(r"^cluster\.(\S+)\.upstream_rq_retry: (\d+)$", text, re.MULTILINE)
    return {name: int(count) for name, count in found}


def gained(before: Mapping[str, int], after: Mapping[str, int]) -> int:
    """Return by how much counters have grown; those of clusters that are gone, or have come again, take nothing off."""
    return sum(max(0, count - before.get(name, 0)) for name, count in after.items())


def pods_of(deployed: Deployed) -> set[str]:
    """Return the uids of a deployment's pods that are not about to go."""
    found = set(deployed.pods())
    see(found, f"{deployed.name} has no pods")
    return found
